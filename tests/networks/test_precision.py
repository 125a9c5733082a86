"""How a network is computed: what `auto` takes, and that bfloat16 costs next to nothing in quality."""

import inspect
import json

import numpy as np
import pytest
import torch

import hftn_sr
from hftn_sr.errors import UsageFault
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.networks import NETWORKS
from hftn_sr.networks import precision as precision
from hftn_sr.networks.precision import InBfloat16, WithMeasuredBand, WithTTA, choose_precision, choose_tta, prepare_network
from hftn_sr.networks.weights import MODELS_FOLDER, load_model
from hftn_sr.scoring.metrics import psnr
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.simulation import crop_to_multiple, in_plane_last
from test_workflows import PACKAGE
from tiny import tiny_network


@pytest.fixture
def processor(monkeypatch):
    """Pretend that the CPU has bfloat16 or has not."""
    return lambda has: monkeypatch.setattr(precision, "has_bfloat16", lambda: has)


@pytest.fixture
def sample_slices(tmp_path):
    """At a scale, what the network sees of the middle slices of the sample pair, and the truth."""

    def slices(scale):
        sample = PACKAGE / "sample"
        truth = read_nifti(sample / "synthetic_target.nii.gz")
        hftn_sr.degrade(sample / "synthetic_target.nii.gz", tmp_path / "low.nii.gz", scale=scale)
        pair = prepare_pair(tmp_path / "low.nii.gz", sample / "synthetic_reference.nii.gz", PairOptions(scale=scale))
        middle = slice(pair.image.shape[-1] // 2 - 1, pair.image.shape[-1] // 2 + 1)
        axes = pair.grid.slice_axes(pair.through_plane)
        label = in_plane_last(torch.from_numpy(crop_to_multiple(truth, scale, pair.through_plane).data), axes)[middle] / pair.unit
        return pair.image[..., middle].movedim(-1, 0).contiguous(), label

    return slices


def test_auto_takes_bfloat16_only_for_shipped_weights_on_a_processor_that_has_it(processor):
    processor(True)
    assert choose_precision("auto", "cpu", "base") == "bfloat16"
    assert choose_precision("auto", "cpu", str(MODELS_FOLDER / "base_x2.safetensors")) == "bfloat16"
    assert choose_precision("auto", "cpu", "mine.safetensors") == "float32"
    assert choose_precision("auto", "cpu", "runs/best.safetensors") == "float32"
    assert choose_precision("auto", "cuda", "base") == "float32"
    processor(False)
    assert choose_precision("auto", "cpu", "base") == "float32"


def test_shipped_weights_are_known_by_any_path(processor, monkeypatch):
    processor(True)
    monkeypatch.chdir(MODELS_FOLDER.parent)
    assert choose_precision("auto", "cpu", "models/base_x2.safetensors") == "bfloat16"
    assert choose_tta(None, "models/base_x2.safetensors") == 4
    assert choose_tta(None, "other/base_x2.safetensors") == 1


@pytest.mark.parametrize("named", ["float32", "bfloat16"])
def test_a_runtime_that_is_named_is_taken_whatever_the_processor(named, processor):
    processor(named == "float32")
    assert choose_precision(named, "cpu", "mine.safetensors") == named


def test_a_misspelt_runtime_is_refused():
    with pytest.raises(UsageFault, match="'fp16' is not known"):
        choose_precision("fp16", "cpu", "base")


def test_in_bfloat16_the_zero_filled_image_is_not_rounded():
    image = torch.rand(1, 3, 16, 16)
    result = InBfloat16(tiny_network(2, zero=True))(image)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, image[:, :1], rtol=0, atol=0)


def test_eager_is_the_network_itself():
    network = tiny_network(2)
    assert prepare_network(network, "float32") is network


SMALLER = {"channels": 8, "stages": 1, "groups": 1, "blocks": 1}


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.inference_mode()
def test_every_network_runs_in_bfloat16(name):
    known = set(inspect.signature(NETWORKS[name]).parameters) - ({"stages"} if name == "sanet" else set())
    network = NETWORKS[name](2, **{option: value for option, value in SMALLER.items() if option in known}).eval()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(prepare_network(network, "bfloat16")(image), network(image), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("asked", "model", "taken"),
    [
        (None, "base", 4),
        (None, str(MODELS_FOLDER / "base_x4.safetensors"), 4),
        (None, "correspondence", 4),
        (None, "small", 1),
        (None, "mine.safetensors", 1),
        (None, "runs/base_x2.safetensors", 1),
        (None, str(MODELS_FOLDER / "correspondence_any.safetensors"), 4),
        (None, str(MODELS_FOLDER / "small_any.safetensors"), 1),
        (1, "base", 1),
        (8, "small", 8),
    ],
)
def test_the_larger_weights_are_computed_in_four_orientations_unless_asked_otherwise(asked, model, taken):
    assert choose_tta(asked, model) == taken


def test_another_number_of_orientations_is_refused():
    with pytest.raises(UsageFault, match="3 is not known"):
        choose_tta(3, "base")


class OfMeasuredSamples(torch.nn.Module):
    """Everything but what a scanner measured at scale 2 is lost; the rest moves by (1, 2), which no turn and no mirror leaves as it is."""

    def forward(self, image):
        kept = torch.zeros_like(image[:, :1])
        kept[..., ::2, ::2] = image[:, :1, ::2, ::2]
        return kept + image[:, 1:2].roll((1, 2), (-2, -1))


@pytest.mark.parametrize("tta", [2, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_measured_samples_stay_at_their_places_in_every_orientation(tta, size):
    image = torch.rand(2, 3, *size)
    image[:, 1:] = 0
    torch.testing.assert_close(WithTTA(OfMeasuredSamples(), tta)(image), OfMeasuredSamples()(image))


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
def test_averaged_over_orientations_a_network_treats_a_turned_slice_as_the_slice(tta):
    network = WithTTA(OfMeasuredSamples(), tta) if tta > 1 else OfMeasuredSamples()
    moves = {  # about sample 0
        2: lambda image: image.flip(-1).roll(1, -1),
        4: lambda image: image.flip(-2).roll(1, -2),
        8: lambda image: image.transpose(-1, -2).flip(-1).roll(1, -1),
    }
    image = torch.rand(2, 3, 6, 10)
    followed = {count for count, move in moves.items() if torch.allclose(network(move(image)), move(network(image)))}
    assert followed == {count for count in moves if count <= tta}


@pytest.mark.parametrize("scale", [2, 4])
def test_the_measured_band_stays_and_the_rest_is_the_networks(scale):
    low = torch.rand(2, 1, 12, 8, dtype=torch.double)
    image = torch.cat([zero_fill(low, scale), torch.rand(2, 2, 12 * scale, 8 * scale, dtype=torch.double)], 1)
    network = lambda image: image[:, 1:2]  # noqa: E731 - takes nothing from the target
    result = WithMeasuredBand(network, scale)(image)
    torch.testing.assert_close(truncate(result, scale), low)
    added = result - zero_fill(low, scale)
    torch.testing.assert_close(added, image[:, 1:2] - zero_fill(truncate(image[:, 1:2], scale), scale))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("model", ["base", "correspondence"])
@torch.inference_mode()
def test_the_shipped_weights_gain_by_orientations(model, scale, sample_slices):
    image, label = sample_slices(scale)
    once, turned = (prepare_network(load_model(model, scale).network, "float32", count)(image)[:, 0] for count in (1, 4))
    assert float(psnr(turned, label)) > float(psnr(once, label)) + 0.02


@torch.inference_mode()
def test_mirrored_passes_search_once(sample_slices):
    network, searches = load_model("correspondence", 4).network, []
    network.attend.register_forward_hook(lambda *_: searches.append(1))
    image, label = sample_slices(4)
    once, each = prepare_network(network, "float32", 4)(image)[:, 0], WithTTA(network, 4)(image)[:, 0]
    assert len(searches) == 1 + 4
    assert abs(float(psnr(once, label)) - float(psnr(each, label))) < 0.03


@pytest.mark.parametrize("scale", [2, 4])
@torch.inference_mode()
def test_the_shipped_weights_lose_less_than_a_hundredth_of_a_decibel_in_bfloat16(scale, sample_slices):
    image, label = sample_slices(scale)
    network = load_model("base", scale).network
    eager, rounded = (prepare_network(network, chosen, 4)(image)[:, 0] for chosen in ("float32", "bfloat16"))
    assert not torch.equal(eager, rounded)
    assert float(psnr(rounded, label)) > float(psnr(eager, label)) - 0.01


def test_the_record_says_how_the_network_was_computed_and_another_runtime_makes_a_result_stale(weights, put_case, tmp_path, command):
    target, reference = put_case(tmp_path)
    output = tmp_path / "out.nii.gz"
    arguments = ["super-resolve", "--target", target, "--reference", reference, "--output", output, "--model", weights[2], "--scale", 2]
    arguments += ["--no-preview", "--overwrite", "stale"]
    assert command(*arguments, "--precision", "bfloat16").exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text())["precision"] == "bfloat16"
    in_bfloat16 = read_nifti(output).data
    assert command(*arguments, "--precision", "bfloat16").exit_code == 3
    assert command(*arguments, "--precision", "auto").exit_code == 0  # the user's own weights: float32
    assert json.loads((tmp_path / "out.json").read_text())["precision"] == "float32"
    in_float32 = read_nifti(output).data
    assert 0 < np.abs(in_bfloat16 - in_float32).max() < 0.01 * in_float32.max()
    assert command(*arguments, "--precision", "auto", "--tta", 4).exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text())["tta"] == 4
    assert np.abs(read_nifti(output).data - in_float32).max() > 0
    assert command(*arguments, "--precision", "auto", "--tta", 3).exit_code == 2
