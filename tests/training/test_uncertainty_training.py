"""Training of the head that estimates errors: results of a network that stays as it is, drawn once and kept."""

import json

import pytest
import safetensors.torch
import torch
from monai.transforms import Compose
from training_process import train

from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import Fault
from hftn_sr.networks import build_network
from hftn_sr.networks.uncertainty import CHANNELS, UncertaintyHead
from hftn_sr.networks.weights import save_weights
from hftn_sr.training.transforms import AcquirePaird, RandSliced
from hftn_sr.training.uncertainty import DrawnResults, RandResultErrord, restored

SMALL = {"slices": 5, "epochs": 2, "epoch_cases": 3, "crop_size": 32, "crops_per_slice": 2}


@pytest.fixture
def model(tmp_path):
    """Weights for any acquisition that add something."""
    torch.manual_seed(0)
    network = build_network("small", None, {"channels": 8, "levels": 2})
    torch.nn.init.normal_(network.output.weight, std=0.02)
    save_weights(tmp_path / "any.safetensors", network, {})
    return tmp_path / "any.safetensors"


def images(depth=4):
    torch.manual_seed(0)
    return {"label": torch.rand(1, 40, 48, depth), "reference": torch.rand(1, 40, 48, depth), "case": "one", "weight": 1.0}


def drawn(model, file, count=3):
    transform = Compose([RandSliced(keys=["label", "reference"]), RandResultErrord(str(model), x2=0.3, x4=0.3)])
    return DrawnResults([images()], transform, lambda item: item, count, file)


def test_a_result_keeps_what_was_measured_and_its_error_is_that_of_the_truth(model):
    transform = RandResultErrord(str(model), x2=1.0, x4=0.0, noise=0.0, magnitude=0.0, unit=(1.0, 1.0))
    transform.set_random_state(0)
    flat = {key: value[..., 0] for key, value in images().items() if key in ("label", "reference")}
    made = transform(flat)
    assert made["image"].shape == (CHANNELS, 40, 48)
    torch.testing.assert_close((flat["label"] - made["image"][3]).abs(), made["label"])
    kept = Acquisition.from_scale(2, (40, 48))
    assert kept.residual(made["image"][3], kept.simulate(flat["label"][0])) < 1e-6
    assert (made["image"][3] - made["image"][0]).abs().max() > 1e-3  # the network added something
    assert made["image"][4:, 0, 0].tolist() == [1, 1, 0, 0]


def test_the_network_gets_no_gradient(model):
    kept = Acquisition.from_scale(2, (40, 48))
    flat = {key: value[..., 0] for key, value in images().items() if key in ("label", "reference")}
    made = AcquirePaird(kept)(flat)
    network = build_network("small", None, {"channels": 8, "levels": 2})
    assert not restored(network, made["image"], made["measured"][0], kept).requires_grad


def test_results_are_made_once_and_kept(model, tmp_path):
    first = drawn(model, tmp_path / "kept" / "results.pt")
    one = [first[index] for index in range(3)]
    content = (tmp_path / "kept" / "results.pt").read_bytes()
    again = drawn("no such file.safetensors", tmp_path / "kept" / "results.pt")
    for before, after in zip(one, (again[index] for index in range(3)), strict=True):
        torch.testing.assert_close(before["image"], after["image"], rtol=0, atol=0)
    assert (tmp_path / "kept" / "results.pt").read_bytes() == content
    with pytest.raises(Fault, match="does not hold 4 results"):
        drawn(model, tmp_path / "kept" / "results.pt", count=4)[0]


def test_the_workflow_trains_a_head_and_leaves_the_network(dataset, model, tmp_path):
    before = model.read_bytes()
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log", "model": model, **SMALL}
    assert train("train_uncertainty", **to) == [0], (tmp_path / "log.0").read_text()[-2000:]
    state = safetensors.torch.load_file(tmp_path / "run" / "best.safetensors")
    head = UncertaintyHead()
    head.load_state_dict(state)
    assert not torch.equal(head.log_scale.weight, torch.zeros_like(head.log_scale.weight))
    with safetensors.safe_open(tmp_path / "run" / "best.safetensors", "pt") as opened:
        record = json.loads(opened.metadata()["record"])
    assert record["steps"] == 6 and record["training"] == ["all"] and record["model"] == str(model)
    assert model.read_bytes() == before and (tmp_path / "run" / "results.pt").is_file()
