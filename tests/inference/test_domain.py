"""What is unlike the training images is said: a handful of numbers, their ranges and margins."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hftn_sr import api
from hftn_sr.errors import Fault
from hftn_sr.inference.domain import FILE, NUMBERS, image_numbers, ranges_of, trained_ranges
from hftn_sr.networks.weights import MODELS_FOLDER

RNG = np.random.default_rng(0)


def disc(noise=0.0, radius=20, size=64):
    rows, columns = np.mgrid[:size, :size] - size / 2
    inside = (rows**2 + columns**2 < radius**2).astype(np.float32)
    return np.repeat((0.8 * inside)[None], 8, 0) + RNG.normal(0, noise, (8, size, size)).astype(np.float32)


def test_the_numbers_of_a_known_image():
    found = image_numbers(disc(0.02), (1.0, 2.0), 1.0)
    assert found["voxel_mm"] == pytest.approx(np.sqrt(2), rel=1e-3)
    assert found["field_mm"] == pytest.approx(64 * np.sqrt(2), rel=1e-3)
    assert found["filled"] == pytest.approx(np.pi * 20**2 / 64**2, rel=0.02)
    assert found["edge"] == 0
    assert found["median"] == pytest.approx(0.8, rel=0.01)
    assert found["noise"] == pytest.approx(0.02, rel=0.05)
    assert image_numbers(disc(radius=60), (1, 1), 1.0)["edge"] == 1
    assert set(found) == set(NUMBERS)


def test_intensities_do_not_count_in_the_scanner_s_unit():
    image = disc(0.02)
    assert image_numbers(1000 * image, (1, 1), 1000.0) == image_numbers(image, (1, 1), 1.0)


def test_an_image_without_signal_has_numbers_too():
    assert all(np.isfinite(value) for value in image_numbers(np.zeros((3, 8, 8), np.float32), (1, 1), 1.0).values())


def test_a_margin_is_how_far_a_patient_lies_outside_the_others():
    each = dict.fromkeys(NUMBERS, 0.98)
    found = ranges_of({"a": [each], "b": [each, {**each, "noise": 1.98}]})
    assert found["noise"] == (0.98, 1.98, 2.0)
    assert found["edge"] == (0.98, 0.98, 1.25)  # the least
    with pytest.raises(ValueError, match="two patients"):
        ranges_of({"a": [each]})


@pytest.fixture
def run(tmp_path, weights, put_case):
    """A run with ranges beside its weights; keywords are ranges of the target's numbers."""

    def of(ranges=None, **changed):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        shutil.copy(weights[2], folder / "tiny.safetensors")
        wide = {name: [0.0, 1e4, 1.1] for name in NUMBERS}
        content = {"ranges": {"target": {**wide, **changed}, "reference": wide}} if ranges is None else ranges
        (folder / FILE).write_text(json.dumps(content), encoding="utf-8")
        target, reference = put_case(tmp_path / "case")
        given = {"model": str(folder / "tiny.safetensors"), "overwrite": "always", "preview": False, "device": "cpu"}
        return api.super_resolve(target, reference, tmp_path / "sr.nii.gz", scale=2, **given)

    return of


def test_a_pair_like_those_of_training_is_not_spoken_of(run):
    outcome = run()
    assert outcome.record["domain"]["unlike_training"] == []
    assert outcome.record["domain"]["target"]["voxel_mm"] == {"value": 1.0, "trained": [0.0, 1e4]}
    assert set(outcome.record["domain"]["reference"]) == set(NUMBERS) - {"voxel_mm", "field_mm"}
    assert not any("trained on" in text for text in (*outcome.warnings, *outcome.notes))


def test_a_number_outside_by_more_than_the_margin_is_a_note_and_by_its_square_a_warning(run):
    outside = "outside what the network was trained on: voxel size in plane (mm) 1, trained on"
    assert not any(outside in text for text in run(voxel_mm=[0.1, 0.98, 1.1]).notes)
    noted = run(voxel_mm=[0.1, 0.88, 1.1])
    assert any(f"the target is {outside}" in text for text in noted.notes) and not any(outside in text for text in noted.warnings)
    warned = run(voxel_mm=[0.1, 0.5, 1.1])
    assert any(f"the target is far {outside}" in text for text in warned.warnings)
    assert warned.record["domain"]["unlike_training"][0] in warned.record["warnings"]


def test_less_noise_than_in_training_is_no_finding(run):
    assert run(noise=[0.5, 0.9, 1.1], edge=[0.5, 0.9, 1.1]).record["domain"]["unlike_training"] == []


def test_weights_without_ranges_say_nothing(tmp_path, weights):
    assert trained_ranges(tmp_path / "mine.safetensors") == {}


@pytest.mark.parametrize("content", [[], {"ranges": {}}, {"ranges": {"target": {"voxel_mm": [1]}}}])
def test_damaged_ranges_are_refused(run, content):
    with pytest.raises(Fault, match="is no file of trained ranges"):
        run(content)


def test_the_shipped_ranges_are_whole():
    found = trained_ranges(MODELS_FOLDER / "base_x2.safetensors")
    assert set(found) == {"target", "reference"}
    assert all(low <= high and margin >= 1 for of in found.values() for low, high, margin in of.values())
