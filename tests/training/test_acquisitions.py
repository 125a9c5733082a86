"""A training for any acquisition: what is drawn, what is simulated, what it is scored on, and that such a run runs and goes on."""

import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from training_process import CONFIGS, perform, train

from hftn_sr.acquisition import Acquisition, Full, KSpace, Slices
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.weights import load_model, save_weights
from hftn_sr.scoring.metrics import scores
from hftn_sr.training.acquisitions import VALIDATED, thick_slices
from hftn_sr.training.dataset import CachedCases
from hftn_sr.training.handlers import AcquisitionGains
from hftn_sr.training.transforms import AcquirePaird, CoverReferenced, ProjectMeasuredd, RandAcquirePaird, RandCoverReferenced

SHAPE = (96, 80)
TINY = {
    "method": "small", "options": {"channels": 8, "levels": 2}, "crop_size": 16, "crops_per_slice": 1, "cases_per_step": 1,
    "epoch_cases": 2, "amp": False, "val_interval": 1, "validation_slices": 1,
}  # fmt: skip
BORDERS = {0: (slice(30), slice(None)), 90: (slice(None), slice(30)), 180: (slice(10, None), slice(None))}


@pytest.fixture
def slices():
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(1, *SHAPE, generator=random) for key in ("label", "reference")}


@pytest.fixture(scope="module")
def draws():
    random = RandAcquirePaird().set_random_state(seed=0)
    return [random.draw(SHAPE) for _ in range(2000)]


def kind(acquisition):
    rows, columns = acquisition.axes
    if any(isinstance(axis, Slices) for axis in acquisition.axes):
        return "slices" if Full() in acquisition.axes else "slices and k-space"
    if acquisition in (Acquisition.from_scale(2, SHAPE), Acquisition.from_scale(4, SHAPE)):
        return f"x{acquisition.factor(SHAPE)}"
    if Full() in (rows, columns):
        return "one axis"
    return "one factor" if acquisition == Acquisition.from_scale(SHAPE[0] / rows.samples, SHAPE) else "two factors"


def test_each_kind_is_drawn_as_often_as_asked(draws):
    share = {name: count / len(draws) for name, count in Counter(kind(each.acquisition) for each in draws).items()}
    assert share["x2"] == pytest.approx(0.12, abs=0.03) and share["x4"] == pytest.approx(0.15, abs=0.03)
    assert share["slices"] + share["slices and k-space"] == pytest.approx(0.25, abs=0.03)
    assert share["slices and k-space"] == pytest.approx(0.05, abs=0.02)
    assert share["one axis"] == pytest.approx(0.14, abs=0.03)
    assert min(share["one factor"], share["two factors"]) > 0.08
    assert np.mean([each.magnitude for each in draws]) == pytest.approx(0.5, abs=0.04)


def test_draws_stay_within_their_bounds_and_fill_them(draws):
    pairs = [(axis, size) for each in draws for axis, size in zip(each.acquisition.axes, SHAPE, strict=True)]
    samples = {axis.samples for axis, _ in pairs if isinstance(axis, KSpace)}
    factors = [size / axis.samples for axis, size in pairs if isinstance(axis, KSpace)]
    assert 1.15 < min(factors) < 1.3 and 4.2 < max(factors) < 4.7  # after rounding
    assert {number % 2 for number in samples} == {0, 1}
    thick = [axis for axis, _ in pairs if isinstance(axis, Slices)]
    spacings, shares = np.array([axis.spacing for axis in thick]), np.array([axis.thickness / axis.spacing for axis in thick])
    assert 1.9 < spacings.min() < 2.2 and 5.6 < spacings.max() < 6.2
    assert shares.min() == pytest.approx(0.7, abs=0.02) and shares.max() == pytest.approx(1.3, abs=0.02)
    assert {axis.profile for axis in thick} == {"gaussian", "box"}
    noise, units = np.array([each.noise for each in draws]), np.array([each.unit for each in draws])
    assert noise.min() >= 0 and 0.045 < noise.max() <= 0.05 and np.median(noise) < 0.01
    assert units.min() == pytest.approx(0.85, abs=0.01) and units.max() == pytest.approx(1, abs=0.01)


def test_a_random_acquisition_is_its_twin_with_what_was_drawn_and_repeats_with_its_seed(slices):
    random, twins = (RandAcquirePaird().set_random_state(seed=5) for _ in range(2))
    for _ in range(10):
        made, expected = random(slices), twins.draw(SHAPE)(slices)
        assert made.keys() == expected.keys() - {"measured"}
        assert all(torch.equal(made[key], expected[key]) for key in made)


@pytest.mark.parametrize("name", VALIDATED)
def test_whole_slices_are_simulated_as_the_acquisition_does(name, slices):
    acquisition = VALIDATED[name](SHAPE)
    made = AcquirePaird(acquisition)(slices)
    measured = acquisition.simulate(slices["label"])
    assert torch.equal(made["measured"], measured)
    torch.testing.assert_close(
        made["image"], torch.cat([acquisition.interpolate(measured, SHAPE), *acquisition.split(slices["reference"])])
    )
    volumes = {key: torch.stack([image, image.flip(-1)], -1) for key, image in slices.items()}
    of_volume = AcquirePaird(acquisition)(volumes)
    assert all(of_volume[key].shape == (*made[key].shape, 2) for key in ("image", "label", "measured", "mean", "std"))
    torch.testing.assert_close(of_volume["image"][..., 0], made["image"])


def test_noise_is_gaussian_in_signed_targets_and_rician_in_magnitudes():
    empty = {"label": torch.zeros(1, *SHAPE), "reference": torch.zeros(1, *SHAPE)}
    acquisition = Acquisition((Full(), Full()))
    signed, magnitude = (AcquirePaird(acquisition, flag, noise=0.05, seed=1)(empty)["measured"] for flag in (False, True))
    assert float(signed.mean()) == pytest.approx(0, abs=0.003) and float(signed.std()) == pytest.approx(0.05, rel=0.05)
    assert float(magnitude.mean()) == pytest.approx(0.05 * (np.pi / 2) ** 0.5, rel=0.05) and magnitude.min() >= 0
    assert torch.equal(signed, AcquirePaird(acquisition, False, noise=0.05, seed=1)(empty)["measured"])
    assert not torch.equal(signed, AcquirePaird(acquisition, False, noise=0.05, seed=2)(empty)["measured"])


def test_another_unit_scales_target_and_label_and_can_be_undone(slices):
    one, other = (AcquirePaird(VALIDATED["x3"](SHAPE), unit=unit)(slices) for unit in (1.0, 0.8))
    for key in ("label", "measured"):
        torch.testing.assert_close(other[key] * 0.8, one[key])
    torch.testing.assert_close(other["image"][0] * 0.8, one["image"][0])
    assert torch.equal(other["image"][1:], one["image"][1:]) and float(other["std"]) == pytest.approx(0.8)


@pytest.mark.parametrize(("angle", "kept"), BORDERS.items(), ids=str)
def test_beyond_its_border_a_reference_is_0(angle, kept):
    ones = {"reference": torch.ones(1, 40, 40), "label": torch.ones(1, 40, 40)}
    expected = torch.zeros(1, 40, 40)
    expected[(slice(None), *kept)] = 1
    covered = CoverReferenced(angle, 0.25)(ones)
    assert torch.equal(covered["reference"], expected) and covered["label"] is ones["label"]


def test_random_borders_are_drawn_as_often_as_asked_and_repeat_with_their_seed():
    ones = {"reference": torch.ones(1, 40, 40)}
    drawn = [[random(ones)["reference"] for _ in range(300)] for random in (RandCoverReferenced(0.3).set_random_state(seed=0),) * 2]
    missing = np.array([1 - float(image.mean()) for image in drawn[0]])
    assert 60 < (missing > 0).sum() < 120 and missing.max() < 0.55
    again = RandCoverReferenced(0.3).set_random_state(seed=0)
    assert all(torch.equal(again(ones)["reference"], image) for image in drawn[0])


def test_thick_slices_cover_the_field_of_view_along_either_axis():
    for axis in (0, 1):
        acquisition = thick_slices(axis, 4.3, SHAPE, 0.8, "box", KSpace(40))
        kept = acquisition.measured_shape(SHAPE)
        assert (kept[axis], kept[1 - axis]) == (round(SHAPE[axis] / 4.3), 40)
        assert acquisition.axes[axis].thickness == pytest.approx(0.8 * SHAPE[axis] / kept[axis])


def test_every_case_is_scored_once_for_each_acquisition_consistent_with_its_target(slices):
    volumes = [{key: torch.stack([image, image.mT.reshape(image.shape)], -1) for key, image in slices.items()}] * 2
    cases = CachedCases(volumes, lambda case: case, each_acquisition=True)
    assert len(cases) == 2 * len(VALIDATED)
    assert [cases[index]["acquisition"] for index in range(len(cases))] == [*VALIDATED, *VALIDATED]
    assert cases[-1]["acquisition"] == list(VALIDATED)[-1]
    assert [case["acquisition"] for case in cases[1:3]] == list(VALIDATED)[1:3]
    with pytest.raises(IndexError):
        cases[len(cases)]
    plain = CachedCases(volumes, lambda case: case)
    assert len(plain) == 2 and plain[1].keys() == slices.keys()
    for index in range(len(VALIDATED)):
        case = cases[index]
        acquisition, batch = VALIDATED[case["acquisition"]](SHAPE), {key: case[key][None] for key in ("label", "measured")}
        batch |= {"acquisition": [case["acquisition"]], "pred": case["image"][None, :1] + 0.1 * torch.rand(1, 1, *SHAPE, 2)}
        result = ProjectMeasuredd("pred")(batch)["pred"]
        by_slice = [acquisition.residual(result[0, 0, ..., slice_], case["measured"][0, ..., slice_]) for slice_ in range(2)]
        assert max(by_slice) < 2e-3
        assert scores(result[0, 0], case["label"][0])["psnr"] > scores(batch["pred"][0, 0], case["label"][0])["psnr"]


def test_the_gains_of_each_acquisition_are_means_over_its_volumes():
    engine = Engine(lambda *_: None)
    label = torch.rand(1, 1, 16, 16, 1)
    gains = AcquisitionGains()
    gains.reset(engine)
    for name, closer in (("x2", 10), ("x4", 1), ("x2", 1)):
        image = label + 0.1
        engine.state.output = {"pred": label + 0.1 / closer, "label": label, "image": image}
        engine.state.batch = {"acquisition": [name]}
        gains.update(engine)
    gains(engine)
    assert engine.state.metrics == {"psnr_gain_x2": pytest.approx(10, abs=1e-3), "psnr_gain_x4": pytest.approx(0, abs=1e-3)}


def test_a_training_for_any_acquisition_begins_with_weights_of_a_scale_runs_saves_and_goes_on(dataset, tmp_path):
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "any", "log": tmp_path / "log", **TINY, "acquisition": "any"}
    at_x4 = {**to, "output_dir": tmp_path / "x4", "acquisition": "paper", "scale": 4, "epochs": 1}
    assert train(**at_x4) == [0], (tmp_path / "log.0").read_text()[-2000:]
    start = tmp_path / "x4" / "best.safetensors"
    stop = "$@train#trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())"
    run = ConfigParser.load_config_file(CONFIGS / "train.yaml")["run"]
    overlay = {"+imports": ["$from ignite.engine import Events"], "run": [*run[:-1], stop, run[-1]]}
    (tmp_path / "stopped.json").write_text(json.dumps(overlay))
    assert train(tmp_path / "stopped.json", **to, epochs=2, initial_weights=start) == [0], (tmp_path / "log.0").read_text()[-2000:]
    assert torch.load(tmp_path / "any" / "latest.pt", weights_only=True)["epoch"] == 1
    assert train(**to, epochs=2, initial_weights=start) == [0], (tmp_path / "log.0").read_text()[-2000:]
    log = (tmp_path / "log.0").read_text()
    assert "epoch 2/2" in log and "epoch 1/2" not in log and "psnr_gain_slices_1x6: " in log
    model = load_model(str(tmp_path / "any" / "best.safetensors"), None)
    (drawn,) = [each for each in model.record["transforms"] if each["class"].endswith("RandAcquirePaird")]
    assert model.scale is None and model.record["acquisition"] == "any" and model.record["network"]["scale"] is None
    assert (drawn["x2"], drawn["factor"], drawn["thickness"], drawn["noise"]) == (0.12, [1.2, 4.5], [0.7, 1.3], 0.05)
    assert model.record["start"]["scale"] == 4 and model.record["start"]["sha256"] == load_model(str(start), 4).sha256

    save = {"_target_": "hftn_sr.training.handlers.SavePredictions", "folder": str(tmp_path / "predictions")}
    placed = {"validate#preprocessing#transforms#0#placed": True, "+validate#handlers": [save]}
    (tmp_path / "predictions.json").write_text(json.dumps(placed))
    configs = [str(CONFIGS / f"{name}.yaml") for name in ("train", "evaluate")] + [str(tmp_path / "predictions.json")]
    command = f'python -m monai.bundle run evaluating --config_file "{configs}" --dataset_dir {dataset} --acquisition any --threads 1'
    assert perform(f"{command} --weights {tmp_path / 'any' / 'best.safetensors'}", tmp_path, tmp_path / "scores") == 0
    told = (tmp_path / "scores").read_text()
    assert "case 12/12 done, last, slices_1x6, left" in told and "psnr_gain_slices_1x6: " in told
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {f"last_{name}.nii.gz" for name in VALIDATED}
    target, pred = nib.load(dataset / "last.nii.gz"), nib.load(tmp_path / "predictions" / "last_x2.nii.gz")
    np.testing.assert_allclose(pred.affine, target.affine, atol=1e-5)
    assert np.abs(pred.get_fdata() - target.get_fdata()).mean() < 0.1 * target.get_fdata().mean()
    assert perform(f"{command} --weights {start}", tmp_path, tmp_path / "refused") == 2
    assert "these weights are for scale 4 along both in-plane axes" in (tmp_path / "refused").read_text().splitlines()[-1]

    assert train(**{**to, "acquisition": "paper"}, epochs=2) == [9]  # like goes on with like alone
    assert "is of a run begun with" in (tmp_path / "log.0").read_text()
    whole = {**to, "output_dir": tmp_path / "whole", "epochs": 2, "initial_weights": start}
    assert train(**whole) == [0]
    ends = [torch.load(tmp_path / name / "latest.pt", weights_only=True)["network"] for name in ("any", "whole")]
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("consistent", [True, False])
def test_weights_for_any_acquisition_are_evaluated_on_each_of_them(consistent, dataset, tmp_path):
    save_weights(tmp_path / "tiny.safetensors", GatedUNet(None, channels=8, levels=2), {})
    parser = ConfigParser()
    for name in ("train", "evaluate"):
        parser.update(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml"))
    parser.update({"dataset_dir": str(dataset), **TINY, "acquisition": "any", "weights": str(tmp_path / "tiny.safetensors"), "tta": 1})
    listed = "$hftn_sr.pairs.datalist.workflow_datalist(@dataset_dir, 'validation')[:1]"
    parser.update({"validate#cases": listed, "data_consistency": consistent})
    evaluator = parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    gains = {name: evaluator.state.metrics[f"psnr_gain_{name}"] for name in VALIDATED}
    assert evaluator.state.metrics["psnr_gain"] == pytest.approx(np.mean(list(gains.values())), abs=1e-6)
    by_slices = [gain for name, gain in gains.items() if name.startswith("slices")]
    assert (min(by_slices) > 0.05) == consistent  # the untrained network interpolates: consistency is all that gains
    assert max(abs(gain) for name, gain in gains.items() if not name.startswith("slices")) < 1e-3
