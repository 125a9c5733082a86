"""Options of a run, from what a user asks for."""

import pytest
import torch

from hftn_sr.errors import UsageFault
from hftn_sr.inference.options import PairOptions, RunOptions, run_options


def test_what_is_left_to_auto_is_chosen(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("hftn_sr.networks.precision.has_bfloat16", lambda: True)
    assert run_options(scale=2) == RunOptions("base", "cpu", pair=PairOptions(scale=2), precision="bfloat16", tta=4)
    assert run_options("small", precision="float32") == RunOptions("small", "cpu", precision="float32", tta=1)


def test_a_device_of_pytorch_is_taken_as_it_is_where_there_is_one(monkeypatch):
    assert run_options(device=torch.device("meta"), precision="float32").device == "meta"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert run_options(device=torch.device("cuda:1"), precision="float32").device == "cuda:1"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageFault, match="--device: cuda was asked for"):
        run_options(device=torch.device("cuda:1"))


def test_one_of_several_gpus_can_be_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert run_options(device="cuda:1", precision="float32").device == "cuda:1"
    assert run_options(precision="float32").device == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageFault, match="--device: cuda was asked for, PyTorch sees no CUDA device"):
        run_options(device="cuda:1")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"model": "bigger"}, "--model: no model 'bigger'"),
        ({"device": "gpu"}, "--device: 'gpu' is not known"),
        ({"precision": "half"}, "--precision: 'half' is not known"),
        ({"tta": 3}, "--tta: 3 is not known"),
        ({"overwrite": "sometimes"}, "--overwrite: 'sometimes' is not known"),
        ({"scale": "two"}, r"--scale: 'two' .*\. Fix: --scale 2 or --scale 1x2"),
        ({"register": "affine"}, "--register: 'affine' is not known"),
    ],
)
def test_what_is_not_understood_is_refused(asked, message):
    with pytest.raises(UsageFault, match=message):
        run_options(**asked)
