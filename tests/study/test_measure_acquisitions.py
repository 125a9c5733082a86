"""The study of acquisitions: what each kind of target keeps, and the table of its scores."""

import csv
import importlib
import json
import sys

import pytest
import torch

from hftn_sr.networks import build_network
from hftn_sr.networks.weights import save_weights


@pytest.fixture(scope="module")
def study():
    return importlib.import_module("measure_acquisitions")


@pytest.fixture(scope="module")
def any_weights(tmp_path_factory):
    """A network that adds nothing to the interpolated target."""
    network = build_network("small", None, {"channels": 8, "levels": 2})
    torch.nn.init.zeros_(network.output.weight)
    path = tmp_path_factory.mktemp("weights") / "any.safetensors"
    save_weights(path, network, {})
    return path


def test_every_kind_of_target_is_made_as_it_is_called(study):
    slices = torch.rand(2, 64, 96, generator=torch.Generator().manual_seed(0)) + 1
    shapes = {trial.name: tuple(trial.measured(slices).shape[1:]) for trial in study.TRIALS}
    assert shapes["x4"] == (16, 24) and shapes["1x2"] == (64, 48) and shapes["slices_6x1"] == (11, 96)
    assert shapes["interpolated 512 of 256 x 205"] == (32, 38) and shapes["slices_4x1 and 1x2 at once"] == (16, 48)
    by_name = {trial.name: trial for trial in study.TRIALS}
    clean = by_name["x2"].measured(slices)
    for percent in (1, 3, 5):
        off = by_name[f"x2, noise {percent} %"].measured(slices) - clean
        assert float(off.std()) == pytest.approx(percent / 100, rel=0.1)
    assert torch.equal(by_name["x2, reference of 57%"].measured(slices), clean)


def test_the_command_writes_every_score_and_the_means(study, synthetic, any_weights, tmp_path, monkeypatch, capsys):
    given = ["--data", synthetic, "--output", tmp_path / "out", "--model", any_weights, "--section", "testing", "--slices", 2]
    monkeypatch.setattr(sys, "argv", ["measure_acquisitions.py", *map(str, given)])
    assert study.main() == 0
    table = capsys.readouterr().out
    with (tmp_path / "out" / "acquisitions.csv").open(newline="") as stream:
        rows = {(row["acquisition"], row["way"]): float(row["psnr"]) for row in csv.DictReader(stream)}
    assert {name for name, _ in rows} == {trial.name for trial in study.TRIALS}
    for trial in study.TRIALS:  # this network adds nothing, whatever the reference
        assert rows[trial.name, "any acquisition"] == pytest.approx(rows[trial.name, "consistent"], abs=1e-3)
    assert rows["x2", "interpolated"] > rows["x4", "interpolated"]
    assert rows["x2, noise 1 %", "interpolated"] > rows["x2, noise 5 %", "interpolated"]
    assert rows["slices_4x1", "consistent"] > rows["slices_4x1", "interpolated"]
    assert "| x3 | " in table and (tmp_path / "out" / "acquisitions.md").read_text() == table
    assert json.loads((tmp_path / "out" / "acquisitions.json").read_text())["weights"]["any"]["file"] == "any.safetensors"
    monkeypatch.setattr(study, "rows_of", None)  # nothing is measured twice
    assert (study.main(), capsys.readouterr().out) == (0, table)


def test_weights_of_one_scale_are_scored_at_that_scale_alone(study, weights):
    networks = study.Networks.load(str(weights[2]), None)
    assert (list(networks.of_scale), networks.of_any) == ([2], None)
    slices, references = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) + 1
    for trial in study.TRIALS:
        found = study.ways(trial, slices, references, networks)
        assert ("one scale" in found) == (trial.name.split(",")[0] == "x2")


def test_where_the_reference_does_not_reach_the_target_alone_counts(study):
    class Shown(torch.nn.Module):
        def forward(self, image):
            return image.sum(1, keepdim=True)

    networks = study.Networks("shown", {}, Shown(), {})
    slices, references = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) + 1
    by_name = {trial.name: trial for trial in study.TRIALS}
    part = by_name["slices_4x1, reference of 57%"]
    measured, acquisition = part.measured(slices), part.acquisition((64, 64))
    alone = acquisition.project(acquisition.interpolate(measured, (64, 64)), measured)
    found = study.ways(part, slices, references, networks)["any acquisition"]
    inner = slice(48, 60)  # the rows of a slice that borders on the covered part agree with it
    assert (found - alone)[:, inner].abs().max() < 0.05 < (found - alone)[:, :24].abs().max()
