"""What the user sees, word for word, of targets that lost resolution in unusual ways (docs/usage.md, "What the scan measured")."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hftn_sr.volumes.volume import Grid, Volume
from phantoms import contrast, oblique, points, write_volume


@pytest.fixture
def planned(tmp_path, monkeypatch, command):
    """Writes a target and a reference of some sizes and voxels and runs them dry; gives the exit code and all lines."""
    monkeypatch.chdir(tmp_path)

    def image(name, shape, spacing, kind):
        grid = Grid(shape, oblique(spacing, (0, 0, 0), shape))
        noise = np.random.default_rng(len(kind)).normal(0, 15, shape)
        write_volume(tmp_path / name, Volume((contrast(points(grid), kind) + noise).astype(np.float32), grid.affine))

    def run(target, reference, side_file=None):
        image("target.nii", *target, "target")
        image("reference.nii", *reference, "reference")
        if side_file:
            (tmp_path / "target.json").write_text(json.dumps(side_file), encoding="utf-8")
        given = ("--target", "target.nii", "--reference", "reference.nii", "--output", "sr.nii", "--device", "cpu")
        done = command("super-resolve", *given, "--unfit-reference", "use", "--dry-run")
        return done.exit_code, [*done.stdout.splitlines(), *done.stderr.splitlines()]

    return run


FINE = ((320, 320, 4), (0.2, 0.2, 1.5))


def test_a_target_that_is_coarse_along_the_phase_direction_alone(planned):
    code, lines = planned(((320, 160, 4), (0.2, 0.4, 1.5)), FINE)
    assert code == 0
    assert {
        "sr.nii: would write 320 x 320 x 4 voxels of 0.2 x 0.2 x 1.5 mm: measured 320 x 160 of 320 x 320 (left-right x front-back)",
        (
            "target.nii measured 320 x 160 of 320 x 320 (left-right x front-back); voxel sizes are 1.00 x 2.00 times the reference's; "
            "voxels of the result: 0.2 x 0.2 x 1.5 mm"
        ),
    } <= set(lines)


def test_a_tie_of_voxel_sizes(planned):
    assert planned(((40, 44, 36), (2, 2, 2)), ((64, 64, 64), (1, 1, 1))) == (
        9,
        [
            (
                "ERROR target.nii: which axis lies across its slices is not to be seen (voxels of 2 x 2 x 2 mm). "
                "Fix: --through-plane 0, 1 or 2, the array axis across the slices."
            )
        ],
    )


def test_tags_that_contradict_the_image(planned):
    tags = {"AcquisitionMatrixPE": 128, "PhaseEncodingDirection": "j", "BaseResolution": 256}
    code, lines = planned(((256, 256, 4), (0.25, 0.25, 1.5)), FINE, tags)
    assert code == 0
    assert {
        (
            "target.nii measured 256 x 128 of 320 x 320 (left-right x front-back); acquired matrix by its side file; "
            "voxel sizes are 1.25 x 1.25 times the reference's; voxels of the result: 0.2 x 0.2 x 1.5 mm"
        ),
        (
            "WARNING target.nii its side file says that 128 of 256 samples were measured, though k-space is filled beyond them; "
            "taken as said, --acquired with the file's own matrix takes all of it"
        ),
    } <= set(lines)


def test_a_ratio_of_1(planned):
    assert planned(FINE, FINE) == (
        3,
        [
            (
                "sr.nii: target.nii: nothing to gain: its voxels of 0.2 x 0.2 x 1.5 mm beside the reference's 0.2 x 0.2 x 1.5 mm are "
                "as fine in plane, and slices are not 2 times as far apart. "
                "Fix: leave it as it is, or ask for thinner slices by --voxel AxBxC."
            )
        ],
    )


@pytest.mark.parametrize(
    ("target", "reference", "told"),
    [
        (
            ((48, 44, 5), (1, 1, 8)),
            ((48, 48, 44), (1, 1, 1)),
            (
                "target.nii 8 mm slices every 8 mm; voxel sizes are 1.00 x 1.00 times the reference's; "
                "slices lie 8.0 times as far apart as the reference's voxels, limited to 6 times as many; "
                "voxels of the result: 1 x 1 x 1.33 mm"
            ),
        ),
        (
            ((40, 44, 4), (3, 1, 5)),
            ((128, 90, 6), (0.5, 0.5, 4)),
            (
                "target.nii measured 40 x 44 of 180 x 88 (left-right x front-back); voxel sizes are 6.00 x 2.00 times the reference's; "
                "limited to 4.5 times what was measured; voxels of the result: 0.667 x 0.5 x 5 mm"
            ),
        ),
    ],
)
def test_the_limits_of_what_networks_were_trained_for(planned, target, reference, told):
    code, lines = planned(target, reference)
    assert code == 0
    assert told in lines
