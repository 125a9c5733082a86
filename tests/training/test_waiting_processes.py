"""A training on several nodes, of which some are missing."""

import logging

import pytest
import torch

from hftn_sr.errors import UsageFault
from hftn_sr.training import start
from hftn_sr.training.start import started_processes, wait_for_processes


class Ended(Exception):  # noqa: N818 - as the signal of torchrun ends a process
    pass


def test_processes_that_are_missing_are_waited_for_where_torchrun_brings_them_back(monkeypatch, caplog):
    def ended(_):
        raise Ended

    monkeypatch.setattr(start.time, "sleep", ended)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    for needed, found in ((0, 1), (2, 2)):
        wait_for_processes(needed, found)
    with caplog.at_level(logging.WARNING), pytest.raises(Ended):
        wait_for_processes(2, 1)
    assert "1 of 2 processes: waiting until torchrun has the others again" in caplog.text


@pytest.mark.parametrize(("needed", "found", "elastic"), [(2, 1, False), (2, 3, True)])
def test_a_number_of_processes_that_will_not_change_is_refused(monkeypatch, needed, found, elastic):
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: elastic)
    refusal = rf"--processes: {found} processes run, {needed} are wanted\. Fix: --processes {found}, or torchrun"
    with pytest.raises(UsageFault, match=refusal):
        wait_for_processes(needed, found)


def test_what_torchrun_has_not_started_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageFault, match=r"--config_file: multi_gpu_train\.yaml is for processes that torchrun starts\. Fix: begin the"):
        started_processes("base")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert started_processes("base") == 3


def test_a_network_that_is_trained_in_one_process_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageFault, match=r"--method: correspondence is trained in one process\. Fix: leave out multi_gpu_train\.yaml"):
        started_processes("correspondence")
