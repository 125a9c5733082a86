"""The parts of a comparison, one by one."""

import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from comparison import check, training
from comparison.check import check_network
from comparison.cost import Cost
from comparison.figures import _Block, _heading, reconstructions
from comparison.results import Comparison, Failure, Result
from comparison.rows import Row, chosen_methods
from comparison.schedule import TIMED_STEPS, schedule, timed_schedule
from comparison.scoring import Scored, View, middle, predictor, score_row
from comparison.settings import check_unchanged
from comparison.table import markdown, table_rows
from hftn_sr.errors import UsageFault, differences
from hftn_sr.networks import METHODS, build_network
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.scoring.metrics import scores, slice_sums
from hftn_sr.training.protocols import PROTOCOLS
from hftn_sr.training.transforms import DegradePaird, LoadPaird

METHODS_SHOWN = ["zero_filling", "mcsr", "early_fusion", "ablation_1", "ablation_2", "ablation_3", "hftn"]


def scored(error, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(16, 20, 3, generator=generator)
    pred = truth + error * torch.randn(16, 20, 3, generator=torch.Generator().manual_seed(seed + 1))
    view = View("case", 0, pred[..., 0].numpy(), truth[..., 0].numpy(), truth[..., 1].numpy())
    alone = slice_sums(truth + 2 * (pred - truth), truth)
    return Scored({"case": slice_sums(pred, truth)}, {"case": alone}, view)


@pytest.fixture
def comparison(tmp_path):
    results = [
        Result(Row(method, scale, None if method == "zero_filling" else 0, {}, 8, Cost(1000, 2_000_000)), tmp_path, scored(error), 10, 0.5)
        for scale in (2, 4)
        for error, method in zip(np.linspace(0.2, 0.1, len(METHODS_SHOWN)) * scale, METHODS_SHOWN, strict=True)
        if (method, scale) != ("ablation_2", 4)
    ]
    failures = [Failure(Row("ablation_2", 4, 0), "killed")]
    return Comparison(
        results, failures, PROTOCOLS["corrected"], "early_fusion", [2, 4], [0], "testing", 3, [], "10 iterations", "published sizes"
    )


@pytest.mark.parametrize("iterations", [1, 2, 3, 7, 20, 100, 997, 1000, 1250, 5000, 12000, 100_000])
def test_epochs_times_steps_are_exactly_the_iterations_and_the_last_epoch_is_validated(iterations):
    plan = schedule(iterations)
    assert plan.epochs * plan.steps == plan.iterations == iterations
    assert plan.epochs % plan.val_interval == 0
    assert plan.steps <= 1000


def test_a_long_training_saves_about_every_250_iterations_and_is_validated_up_to_eight_times():
    assert (schedule(10_000).steps, schedule(10_000).val_interval) == (250, 5)


def test_as_many_iterations_as_fit_into_the_minutes_in_epochs_alike_for_all():
    assert timed_schedule(1, 0.1).iterations == 600
    assert timed_schedule(1, 0.1).steps == timed_schedule(1, 7).steps == TIMED_STEPS
    assert timed_schedule(0.01, 100).iterations == TIMED_STEPS


def test_zero_filling_is_always_among_the_methods_and_all_are_all():
    assert chosen_methods("edsr") == ["zero_filling", "edsr"]
    assert chosen_methods("all") == [name for name in METHODS if name not in ("small", "correspondence", "correspondence_small")]
    with pytest.raises(UsageFault, match="edrs"):
        chosen_methods("edrs")


def test_the_middle_slices_lie_around_the_middle():
    assert [middle(9, 3), middle(8, 4), middle(2, 5), middle(5, None)] == [slice(3, 6), slice(2, 6), slice(0, 2), slice(0, 5)]


def test_differences_are_named_with_their_path():
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}) == ["b.c 2, now 3", "d None, now 4"]


def test_a_row_with_other_settings_goes_only_when_told_to(tmp_path):
    folder = tmp_path / "run"
    check_unchanged(folder, {"seed": 0}, overwrite=False)
    (folder / "latest.pt").touch()
    check_unchanged(folder, {"seed": 0}, overwrite=False)
    with pytest.raises(UsageFault, match="seed 0, now 1"):
        check_unchanged(folder, {"seed": 1}, overwrite=False)
    assert (folder / "latest.pt").exists()
    check_unchanged(folder, {"seed": 1}, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


def test_scores_of_interpolation_are_those_of_the_whole_volume_in_intensities(synthetic, tmp_path):
    (case,) = load_datalist(synthetic, "testing")
    found = score_row(tmp_path, Row("zero_filling", 2, None), None, [case], None, PROTOCOLS["corrected"], "band", {"slices": None})
    prepared = DegradePaird(2)(LoadPaird(2)(case))
    expected = scores(prepared["image"][0], prepared["label"][0])
    assert found.cases["synthetic"].scores() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(found.view.pred, prepared["image"][0, ..., found.view.index])


def test_a_network_is_scored_with_the_measured_band_put_back_and_alone(synthetic, tmp_path):
    (case,) = load_datalist(synthetic, "testing")
    row = Row("early_fusion", 2, 0, {"channels": 8, "groups": 1, "blocks": 1})
    network = build_network(row.method, row.scale, row.options)
    with torch.no_grad():
        network.layers[-1].bias.fill_(0.1)  # a constant, which is in the measured band
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    found = score_row(tmp_path, row, tmp_path / "weights.safetensors", [case], None, PROTOCOLS["corrected"], "band", {"slices": None})
    prepared = DegradePaird(2)(LoadPaird(2)(case))
    zero_filled, truth = prepared["image"][0], prepared["label"][0]
    assert found.cases["synthetic"].scores() == pytest.approx(scores(zero_filled, truth), rel=1e-4)
    assert found.without_data_consistency["synthetic"].scores() == pytest.approx(scores(zero_filled + 0.1, truth), rel=1e-4)
    robust = predictor(row, tmp_path / "weights.safetensors", PROTOCOLS["corrected"])
    torch.testing.assert_close(robust(prepared["image"])[0], zero_filled)


def test_a_network_is_scored_with_the_reference_split_as_asked_for(synthetic, tmp_path):
    (case,) = load_datalist(synthetic, "testing")
    row, weights = Row("base", 2, 0, {"channels": 4}), tmp_path / "weights.safetensors"
    network, generator = build_network(row.method, row.scale, row.options), torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)  # its last layer begins with zeros
    safetensors.torch.save_file(network.state_dict(), weights)
    found = [
        score_row(tmp_path / name, row, weights, [case], 1, PROTOCOLS["corrected"], name, {"slices": 1}) for name in ("band", "gaussian")
    ]
    errors = [each.without_data_consistency["synthetic"].squared_error.sum() for each in found]
    assert all(map(math.isfinite, errors)) and errors[0] != pytest.approx(errors[1], rel=1e-3)


def test_scores_are_read_again_only_where_nothing_they_depend_on_has_changed(synthetic, tmp_path):
    (case,) = load_datalist(synthetic, "testing")
    row = Row("zero_filling", 2, None)
    first = score_row(tmp_path, row, None, [case], None, PROTOCOLS["corrected"], "band", {"slices": None})
    again = score_row(tmp_path, row, None, [], None, PROTOCOLS["corrected"], "band", {"slices": None})
    assert again.cases["synthetic"].scores() == first.cases["synthetic"].scores()
    with pytest.raises(ValueError, match="at least one case"):
        score_row(tmp_path, row, None, [], 1, PROTOCOLS["corrected"], "band", {"slices": 1})


def test_the_markdown_has_both_scales_side_by_side_ticks_and_the_mark_of_our_reading(comparison):
    text = markdown(comparison)
    methods, ablations = text.split("\n## ")[1:3]
    assert methods.count("**protocol corrected") == ablations.count("**protocol corrected") == 1
    assert (
        "| method | x2 PSNR \u2191, dB | x2 SSIM \u2191 | x2 NMSE \u2193 | x2 difference, dB | x2 without data consistency, dB | x4 PSNR"
        in methods
    )
    assert "| MCSR \u2020 |" in methods
    assert "\u2020 our reading" in methods
    assert "early fusion" in methods and "ablation" not in methods
    ticks = [line.split(" | ")[1:4] for line in ablations.splitlines() if line.startswith(("| ablation", "| HFTN"))]
    assert ticks == [list(each) for each in ("\u00d7\u00d7\u00d7", "\u221a\u00d7\u00d7", "\u221a\u221a\u00d7", "\u221a\u221a\u221a")]
    assert "failed" in next(line for line in ablations.splitlines() if line.startswith("| ablation 2"))
    assert "- ablation_2_x4_s0: killed" in text
    assert "over 3 slices" in methods


def test_gain_and_difference_are_paired_differences_at_the_same_scale(comparison):
    rows = {(row["method"], row["scale"]): row for row in table_rows(comparison)}
    for (method, scale), row in rows.items():
        for key, other in (("gain", "zero_filling"), ("difference", "early_fusion")):
            expected = float(row["psnr"]) - float(rows[other, scale]["psnr"])
            assert float(row[key]) == pytest.approx(expected, abs=2e-4), (method, scale)


def test_the_detail_is_where_zero_filling_errs_most():
    truth = np.zeros((40, 48), np.float32)
    pred = truth.copy()
    pred[20:30, 30:42] = 1
    rows, columns = _Block([], View("case", 0, pred, truth, truth), 1.0).detail
    assert (rows, columns) == (slice(20, 30), slice(30, 42))


def test_names_above_pictures_are_no_wider_than_these():
    assert [_heading(method) for method in ("without_p4", "neu")] == ["gated U-Net without p4", "NEU \u2020"]
    assert max(len(line) for method in METHODS for line in _heading(method).splitlines()) <= 24


def test_a_picture_of_equal_images_is_drawn_too(comparison, tmp_path):
    sums = {"case": scored(0.1).cases["case"]}
    same = Scored(sums, sums, View("case", 0, *[np.zeros((16, 20), np.float32)] * 3))
    blank = Comparison(
        [Result(Row("zero_filling", 2, None), tmp_path, same)],
        [],
        PROTOCOLS["corrected"],
        "zero_filling",
        [2],
        [0],
        "testing",
        None,
        [],
        "",
        "",
    )
    assert reconstructions(blank, [2]).startswith(b"\x89PNG")


def test_a_network_of_which_all_learns_has_nothing_without_gradient():
    found = check_network("early_fusion", 4, {"channels": 8, "groups": 1, "blocks": 1}, side=32)
    assert found.without_gradient == []
    assert found.cost.parameters > 0
    assert math.isfinite(found.seconds)


def test_a_layer_that_is_never_used_is_named(monkeypatch):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

        def forward(self, image):
            return self.used(image)

    monkeypatch.setattr(check, "build_network", lambda *arguments: Idle())
    monkeypatch.setattr(check, "method_cost", lambda *arguments: Cost(8, 0))
    assert check_network("edsr", 2, side=16).without_gradient == ["idle.weight", "idle.bias"]


def test_what_is_told_of_a_failed_training_is_its_first_exception_or_our_own_line():
    start = "2026-01-01 - INFO - --- input summary of monai.bundle.scripts.run ---"
    log = [
        start,
        "KeyError: 'old'",
        start,
        "Traceback (most recent call last):",
        "  File x",
        "KeyError: 'mean'",
        "RuntimeError: Failed to evaluate",
        "$x",
    ]
    assert training._finding(log) == "KeyError: 'mean'"
    assert training._finding([*log, "ERROR data/datalist.json: no such file"]).startswith("ERROR data")
    assert training._finding([start]) == start
