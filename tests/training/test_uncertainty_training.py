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
from hftn_sr.training.transforms import AcquirePaird, RandSliced, SliceSignald
from hftn_sr.training.uncertainty import DrawnResults, RandResultErrord, fit_head, restored

SMALL = {"slices": 5, "voxels": 500}


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
    transform = Compose([SliceSignald("label"), RandSliced(keys=["label", "reference"]), RandResultErrord(str(model), x2=0.3, x4=0.3)])
    return DrawnResults([images()], transform, count, file)


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
    one = drawn(model, tmp_path / "kept" / "results.pt").draw()
    content = (tmp_path / "kept" / "results.pt").read_bytes()
    again = drawn("no such file.safetensors", tmp_path / "kept" / "results.pt").draw()
    for before, after in zip(one, again, strict=True):
        torch.testing.assert_close(before["image"], after["image"], rtol=0, atol=0)
    assert (tmp_path / "kept" / "results.pt").read_bytes() == content
    with pytest.raises(Fault, match="does not hold 4 results"):
        drawn(model, tmp_path / "kept" / "results.pt", count=4).draw()


def test_a_fitted_head_finds_the_scale_of_known_errors(tmp_path):
    torch.manual_seed(0)
    truth, results = UncertaintyHead(), []
    torch.nn.init.normal_(truth.linear.weight, std=0.5)
    for _ in range(4):
        image = torch.rand(CHANNELS, 40, 40)
        image[4:] = torch.rand(4, 1, 1)
        with torch.no_grad():
            scale = truth(image[None])[0].exp()
        results.append({"image": image, "label": scale * torch.distributions.Exponential(1.0).sample(scale.shape), "case": "one"})
    head = fit_head(results, tmp_path / "head.safetensors", {"seed": 0})
    with torch.no_grad():
        ratio = (head(results[0]["image"][None]) - truth(results[0]["image"][None])).exp()
    assert ratio.min() > 0.8 and ratio.max() < 1.25


def test_the_workflow_trains_a_head_and_leaves_the_network(dataset, model, tmp_path):
    before = model.read_bytes()
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log", "model": model, **SMALL}
    assert train("train_uncertainty", **to) == [0], (tmp_path / "log.0").read_text()[-2000:]
    state = safetensors.torch.load_file(tmp_path / "run" / "best.safetensors")
    head = UncertaintyHead()
    head.load_state_dict(state)
    assert not torch.equal(head.linear.weight, torch.zeros_like(head.linear.weight))
    with safetensors.safe_open(tmp_path / "run" / "best.safetensors", "pt") as opened:
        record = json.loads(opened.metadata()["record"])
    assert (record["slices"], record["training"], record["model"]) == (5, ["all"], str(model))
    assert model.read_bytes() == before and (tmp_path / "run" / "results.pt").is_file()
