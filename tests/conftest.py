"""Tiny networks, tiny cases and the command in-process, for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hftn_sr.cli.commands import app
from hftn_sr.networks.weights import save_weights
from hftn_sr.volumes.simulation import degrade
from phantoms import phantom, write_volume
from tiny import tiny_network

torch.set_num_threads(1)


# The same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture
def mirror():
    """Folder with a copy of the open data, as `hftn-sr data open-ms` leaves it."""
    named = os.environ.get("HFTN_SR_DATA_MIRROR")
    if not named or not Path(named).is_dir():
        pytest.skip("HFTN_SR_DATA_MIRROR names no folder with a copy of the open data")
    return Path(named) / "open_ms_data" if (Path(named) / "open_ms_data").is_dir() else Path(named)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Scale to weights file of a network that adds something."""
    folder = tmp_path_factory.mktemp("weights")
    for scale in (2, 4):
        save_weights(folder / f"tiny_x{scale}.safetensors", tiny_network(scale), {"iterations": 0})
    return {scale: folder / f"tiny_x{scale}.safetensors" for scale in (2, 4)}


@pytest.fixture(scope="session")
def zero_weights(tmp_path_factory):
    """Scale to weights file of a network that is zero-filling."""
    folder = tmp_path_factory.mktemp("zero_weights")
    for scale in (2, 4):
        save_weights(folder / f"zero_x{scale}.safetensors", tiny_network(scale, zero=True), {})
    return {scale: folder / f"zero_x{scale}.safetensors" for scale in (2, 4)}


@pytest.fixture(scope="session")
def pair():
    """Scale to (target, reference) in memory, the target with some noise as every scan has it."""

    def of(scale, shape=(40, 44, 4)):
        truth, reference = phantom(shape), phantom(shape, kind="reference")
        noise = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
        return degrade(truth.on(truth.grid, truth.data + noise), scale, 2), reference

    return of


@pytest.fixture
def put_case(pair):
    """Writes target.nii.gz and reference.nii.gz of one case into a folder."""

    def put(folder, scale=2, shape=(40, 44, 4)):
        target, reference = pair(scale, shape)
        return write_volume(folder / "target.nii.gz", target), write_volume(folder / "reference.nii.gz", reference)

    return put


@pytest.fixture
def command():
    """The command in-process; gives exit_code, stdout and stderr."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
