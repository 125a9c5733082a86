"""The net of these tests, and a disk that is full."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from loopback import Server

from hftn_sr.pairs import download


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """A net with nothing on it yet, and no mirror in the environment."""
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    with Server({}) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def full_disk(monkeypatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
