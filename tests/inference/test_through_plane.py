"""Thick slices: from files on disk to a result on thin ones that agrees with what was measured."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from hftn_sr.acquisition import Acquisition, Full, Slices
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.through_plane import ThickSlices
from hftn_sr.networks import build_network
from hftn_sr.networks.weights import save_weights
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import thick_pair, write_volume


@pytest.fixture
def any_weights(tmp_path):
    torch.manual_seed(0)
    network = build_network("small", None, {"channels": 8, "levels": 2})
    torch.nn.init.normal_(network.output.weight, std=0.02)
    save_weights(tmp_path / "any.safetensors", network, {})
    return tmp_path / "any.safetensors"


@pytest.mark.parametrize(("thickness", "in_plane"), [(5.0, 1), (4.0, 1), (5.0, 2)])
def test_files_of_thick_slices_become_thin_ones_in_place(tmp_path, command, any_weights, thickness, in_plane):
    target, reference, truth = thick_pair(thickness, in_plane)
    files = write_volume(tmp_path / "flair.nii", target), write_volume(tmp_path / "t1.nii", reference)
    (tmp_path / "flair.json").write_text(json.dumps({"SliceThickness": thickness}), encoding="utf-8")
    given = ("--target", files[0], "--reference", files[1], "--model", any_weights, "--device", "cpu", "--unfit-reference", "use")
    planned = command("super-resolve", *given, "--output", tmp_path / "o.nii", "--dry-run")
    assert "would write 36 x 32 x 20 voxels of 1 x 1 x 1 mm" in planned.stdout, planned.stderr
    assert f"{thickness:g} mm slices every 5 mm" in planned.stdout
    done = command("super-resolve", *given, "--output", tmp_path / "o.nii")
    assert done.exit_code == 0, done.stderr
    result = read_nifti(tmp_path / "o.nii")
    np.testing.assert_allclose(result.affine, truth.affine, atol=1e-4)
    kept = Acquisition((Full(), Full(), Slices(thickness, 5.0)))
    if in_plane == 1:
        off = kept.simulate(torch.from_numpy(result.data)).numpy() - target.data
        assert np.linalg.norm(off) < 2e-3 * np.linalg.norm(target.data)
    record = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert record["data_consistency"]["residual_of_slices"] <= 1.01e-3
    assert record["model_of_slices"]["name"] == "any any"
    assert command("super-resolve", *given, "--output", tmp_path / "o.nii", "--overwrite", "stale").exit_code == 3
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mm slices every 5 mm" in page and "no pictures" not in page


def test_a_network_that_adds_nothing_leaves_the_projected_interpolation(tmp_path):
    target, _, truth = thick_pair()
    grid = Grid(truth.data.shape, truth.affine)
    kept = Acquisition((Full(), Full(), Slices(5.0, 5.0)))
    acquired = Acquired(grid, 2, kept, target.data.shape, "as asked")
    thick = ThickSlices(acquired, None, 1.0, 100.0)
    result = thick.thinner(target.data, torch.nn.Sequential(First()), "cpu", tmp_path, Reporter()).volume
    measured = torch.from_numpy(target.data).double()
    z = kept.interpolate(measured, grid.shape)
    expected = torch.stack([kept.select((1, 2)).project(z[i], measured[i]) for i in range(len(z))])
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-3)
    assert thick.residual(result, target.data) < 1.01e-3


def test_the_reference_is_averaged_over_the_slices_as_the_target_was(tmp_path):
    target, _, truth = thick_pair()
    acquired = Acquired(Grid(truth.data.shape, truth.affine), 2, Acquisition((Full(), Full(), Slices(5.0, 5.0))), target.data.shape, "")
    fine, thick = Scratch(truth.data.shape, 2, tmp_path), Scratch(target.data.shape, 2, tmp_path)
    fine.volume[:] = truth.data
    ThickSlices(acquired, fine, 1.0, 1.0).averaged(thick)
    np.testing.assert_allclose(thick.volume, target.data, atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_slices_that_overlap_gain_and_their_noise_is_not_multiplied(tmp_path, noise):
    tissue = torch.from_numpy(ellipsoids()).double()
    kept = Acquisition((Full(), Full(), Slices(8, 4)))
    drawn = torch.randn((60, 60, 15), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = kept.simulate(tissue) + noise * float(tissue.max()) * drawn
    acquired = Acquired(Grid((60, 60, 60), np.eye(4)), 2, kept, (60, 60, 15), "as asked")
    result = ThickSlices(acquired, None, 1.0, 1.0).thinner(measured.float().numpy(), First(), "cpu", tmp_path, Reporter()).volume
    interpolated = kept.interpolate(measured, (60, 60, 60))
    assert np.square(result - tissue.numpy()).mean() < (0.9 if noise else 0.8) * (interpolated - tissue).square().mean()


class First(torch.nn.Module):
    def forward(self, image):
        return image[:, :1]


def ellipsoids(shape=(60, 60, 60), number=120):
    """Tissue of edges in all directions, values 0 to 5."""
    draw = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    tissue = np.zeros(shape, np.float32)
    for each in range(number):
        centre, axes = draw.uniform(5, np.subtract(shape, 5)), draw.uniform(4, 12, 3)
        tissue[(((index - centre) / axes) ** 2).sum(-1) < 1] = each % 5 + 1
    return tissue


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_known_displacement_is_measured_beside_thick_slices_along_each_axis(tmp_path, axis):
    tissue = ellipsoids()
    kept = Acquisition(tuple(Slices(5, 5) if dim == axis else Full() for dim in range(3)))
    thick = Volume(kept.simulate(torch.from_numpy(tissue)).numpy(), kept.measured_affine(np.eye(4), tissue.shape))
    target = write_volume(tmp_path / "thick.nii", thick)
    options = PairOptions(voxel=(1.0, 1.0, 1.0), through_plane=axis, register="none", unfit_reference="use")
    inside = [dim for dim in range(3) if dim != axis]
    for moved, along in ((0.0, axis), (1.0, inside[0]), (1.0, inside[1]), (2.0, inside[1]), (1.0, axis), (-1.0, axis)):
        place = np.eye(4)
        place[along, 3] = moved
        reference = write_volume(tmp_path / "reference.nii", Volume((6 - tissue) ** 2 / 6, place))
        found = prepare_pair(target, reference, options).record["alignment"]
        across = moved if along == axis else 0.0
        assert found["displacement_voxels"] == pytest.approx(abs(moved - across), abs=0.15)
        assert found["displacement_across_voxels"] == pytest.approx(across, abs=0.3 if across == 0 else 1.0)
        assert (abs(found["displacement_across_voxels"]) > 0.5) == (across != 0)


def test_a_reference_out_of_place_across_thick_slices_is_said_so(tmp_path):
    tissue, place = ellipsoids(), np.diag([1.0, 1, 1, 1])
    kept = Acquisition((Full(), Full(), Slices(5, 5)))
    target = write_volume(
        tmp_path / "t.nii", Volume(kept.simulate(torch.from_numpy(tissue)).numpy(), kept.measured_affine(np.eye(4), (60, 60, 60)))
    )
    place[2, 3] = 1.5
    reference = write_volume(tmp_path / "r.nii", Volume((6 - tissue) ** 2 / 6, place))
    warnings = prepare_pair(target, reference, PairOptions(register="none")).warnings
    (said,) = [warning for warning in warnings if "away" in warning]
    assert re.match(r"the reference seems to lie \d\.\d voxels of the result across the slices away from where it belongs", said)


def test_where_the_reference_does_not_reach_thin_slices_are_made_from_the_target_alone(tmp_path):
    target, _, truth = thick_pair()
    grid = Grid(truth.data.shape, truth.affine)
    acquired = Acquired(grid, 2, Acquisition((Full(), Full(), Slices(5.0, 5.0))), target.data.shape, "")
    half = Scratch(truth.data.shape, 2, tmp_path)
    half.volume[..., :10] = truth.data[..., :10]
    torch.manual_seed(0)
    network = build_network("small", None, {"channels": 8, "levels": 2}).eval()
    torch.nn.init.normal_(network.output.weight, std=0.02)
    results = {}
    for name, reference, of in (("half", half, grid.cropped((0, 0, 0), (36, 32, 10))), ("none", None, None)):
        thick = ThickSlices(acquired, reference, 100.0, 100.0, of)
        results[name] = thick.thinner(target.data, network, "cpu", tmp_path, Reporter()).volume
    inside, outside = (np.abs(results["half"] - results["none"])[..., part].max() for part in (slice(0, 6), slice(16, 20)))
    assert outside < 0.05 * inside
