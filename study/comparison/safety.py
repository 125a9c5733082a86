"""What the command makes of references that are wrong, and of lesions that one image alone shows.

A case is degraded, its reference disturbed, both are written as files, and the steps of `super-resolve` place, register, use or leave out
the reference. Each way to treat it is tried, so that a table tells what the command's choice costs against the best.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import hftn_sr
from comparison.scoring import middle
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.pair import PreparedPair, prepare_pair
from hftn_sr.inference.through_plane import applied
from hftn_sr.networks.weights import Model
from hftn_sr.scoring.metrics import psnr
from hftn_sr.training.transforms import DisplaceReferenced
from hftn_sr.volumes.nifti import ReadOptions, read_nifti, save_nifti
from hftn_sr.volumes.placement import chained_transforms
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, in_plane_first, in_plane_last, intensity_unit
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["LESIONS", "Lesion", "Scene", "Treated", "disturbed", "load_scene", "measure_lesions", "measure_references", "turn_about_middle"]

SHIFTS, ANGLES, FIELDS = (0.5, 1.0, 2.0, 4.0), (1.0,), (1.0, 2.0, 3.0, 4.0)  # voxels, degrees, voxels (95th percentile)
CELLS = 32  # voxels between the nodes of a smooth field
DIAMETERS, CONTRAST = (3.5, 9.0), 0.3  # of lesions: voxels of the result; share of the image's intensity unit
PLACES, APART, BORDER = 6, 24, 16  # lesions in a slice, their least distance, and that from the slice's border, in voxels
TISSUE = 0.3  # share of the intensity unit from which a voxel counts as tissue
RING = (2.0, 5.0)  # voxels from a lesion's edge between which its surroundings are taken
SLAB, MARGIN = 16, 10.0  # slices that are kept around the scored ones; mm of the reference around what is kept
READ = ReadOptions(assume_affine="sform")  # the transforms of the open data shear a little, which a qform cannot hold
DEFAULT = PairOptions(read=READ)
AS_IT_LIES = replace(DEFAULT, register="none", unfit_reference="use")
REGISTERED = replace(DEFAULT, register="rigid", unfit_reference="use")

Treatment = Literal["used", "registered", "left out"]


@dataclass(frozen=True)
class Scene:
    """A case at high resolution.

    Args:
        name: of the case.
        truth: target; its sizes are multiples of 4 in-plane.
        reference: of another contrast, placed in the target's space, on its own grid.
        foreign: reference of another patient, its middle on that of this one.
        post: the reference after contrast agent, where there is one.
        scored: slices of the truth.
        places: for each scored slice, rows and columns of lesions.
    """

    name: str
    truth: Volume
    reference: Volume
    foreign: Volume
    post: Volume | None
    scored: Sequence[int]
    places: Sequence[Sequence[tuple[int, int]]]

    @property
    def axes(self) -> tuple[int, int, int]:
        """Array axes through-plane first, see `Grid.slice_axes`."""
        return self.truth.grid.slice_axes(self.truth.grid.through_plane())

    def slices(self, volume: Volume) -> Tensor:
        """(n, H, W), the scored slices of a volume on the truth's grid."""
        return in_plane_last(torch.from_numpy(volume.data), self.axes)[list(self.scored)].double()


class Treated(NamedTuple):
    """One disturbance of a reference.

    Args:
        name: of the disturbance.
        chosen: what the command does with it by default.
        gains: over zero-filling in dB, by network and treatment.
        displacement: that the command sees, voxels of the result; NaN where it sees none.
        agreement: of edges, 0 to 1; NaN likewise.
        warnings: of the run by default.
    """

    name: str
    chosen: Treatment
    gains: Mapping[str, Mapping[Treatment, float]]
    displacement: float
    agreement: float
    warnings: Sequence[str]


class Lesion(NamedTuple):
    """Lesions of one size and sign that one image alone shows.

    Args:
        where: `target`, `reference`, or `enhancement`: the reference after contrast agent in place of the one before.
        diameter: voxels of the result; 0 for enhancement.
        sign: 1 bright, -1 dark.
        chosen: what the command does with the reference by default.
        shares: by network, the share of their contrast in the result at each place; that of zero-filling under `zero-filled`.
        warnings: of the run by default that it gives for these alone.
    """

    where: str
    diameter: float
    sign: int
    chosen: Treatment
    shares: Mapping[str, Sequence[float]]
    warnings: Sequence[str]


LESIONS = [(where, diameter, sign) for where in ("target", "reference") for diameter in DIAMETERS for sign in (1, -1)]


# Cases


def load_scene(case: Mapping[Hashable, Any], donor: Mapping[Hashable, Any], slices: int, size: int = 0) -> Scene:
    """Read a case of a datalist and the reference of its donor.

    Args:
        case: of a datalist.
        donor: of another patient.
        slices: so many from the middle are scored.
        size: in-plane voxels that are kept around the middle; 0 keeps all.

    Raises:
        Fault: a file cannot be used.
    """
    truth, reference = _pair(case)
    axis = truth.grid.through_plane()
    chosen = list(range(truth.data.shape[axis]))[middle(truth.data.shape[axis], slices)]
    first = max(0, (chosen[0] + chosen[-1] + 1 - SLAB) // 2)
    counts = [min(size or length, length) for length in truth.data.shape]
    counts[axis] = min(SLAB, truth.data.shape[axis] - first)
    starts = [(length - count) // 2 for length, count in zip(truth.data.shape, counts, strict=True)]
    starts[axis] = first
    middle_of_truth = _middle(truth)
    truth = crop_to_multiple(_cut(truth, starts, counts), 4, axis)
    donor_truth, foreign = _pair(donor)
    foreign = foreign.moved(_middle(donor_truth) @ np.linalg.inv(middle_of_truth))
    after = Path(str(case["reference"]).replace("T1_N4", "T1POST_N4"))
    post = read_nifti(after, READ) if after != Path(str(case["reference"])) and after.is_file() else None
    near = [_around(volume, truth.grid) for volume in (reference, foreign)]
    scored = [index - first for index in chosen]
    scene = Scene(str(case["case"]), truth, near[0], near[1], _around(post, truth.grid) if post else None, scored, [])
    unit = intensity_unit(truth.data)
    return replace(scene, places=[_places(each / unit, index) for index, each in enumerate(scene.slices(truth))])


def _pair(case: Mapping[Hashable, Any]) -> tuple[Volume, Volume]:
    target, reference = (read_nifti(Path(str(case[role])), READ) for role in ("target", "reference"))
    return target, reference.moved(chained_transforms(case.get("transform"), case.get("inverse_transform")))


def _cut(volume: Volume, start: Sequence[int], shape: Sequence[int]) -> Volume:
    part = tuple(slice(low, low + size) for low, size in zip(start, shape, strict=True))
    grid = volume.grid.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
    return volume.on(grid, np.ascontiguousarray(volume.data[part]))


def _around(volume: Volume, grid: Grid) -> Volume:
    """The part of a volume that lies within MARGIN mm of a grid, along the volume's own axes."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    points = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    index = np.linalg.solve(volume.affine[:3, :3], (points - volume.affine[:3, 3]).T)
    more = MARGIN / volume.grid.spacing
    low = np.maximum(np.floor(index.min(axis=1) - more), 0).astype(int)
    high = np.minimum(np.ceil(index.max(axis=1) + more) + 1, volume.data.shape).astype(int)
    return _cut(volume, low.tolist(), (high - low).tolist())


def _middle(volume: Volume) -> NDArray[np.float64]:
    """(4, 4), from a frame in the middle of the volume, along its axes in mm, to RAS+ mm."""
    frame = volume.affine.copy()
    frame[:3, :3] /= volume.grid.spacing
    frame[:3, 3] += volume.affine[:3, :3] @ (np.subtract(volume.data.shape, 1) / 2)
    return frame


def _places(image: Tensor, seed: int) -> list[tuple[int, int]]:
    """Random places in the tissue of (H, W), none near another one."""
    smooth = functional.avg_pool2d(image[None], 2 * BORDER // 2 + 1, stride=1, padding=BORDER // 2)[0]
    inside = (smooth > TISSUE) & (image > TISSUE)
    inside[:BORDER], inside[-BORDER:], inside[:, :BORDER], inside[:, -BORDER:] = False, False, False, False
    candidates = inside.nonzero().tolist()
    found: list[tuple[int, int]] = []
    for index in np.random.default_rng(seed).permutation(len(candidates)):
        row, column = candidates[index]
        if len(found) < PLACES and all(math.hypot(row - other, column - there) >= APART for other, there in found):
            found.append((row, column))
    return found


# References


def disturbed(scene: Scene) -> Iterator[tuple[str, Volume]]:
    """The reference as files may come, by name of what is wrong with it."""
    reference, grid = scene.reference, scene.truth.grid
    _, *in_plane = scene.axes
    yield "in place", reference
    for voxels in SHIFTS:
        movement = np.eye(4)
        movement[:3, 3] = voxels / math.sqrt(2) * grid.affine[:3, in_plane].sum(axis=1)
        yield f"moved by {voxels:g} px", reference.moved(movement)
    for degrees in ANGLES:
        yield f"turned by {degrees:g} degrees", reference.moved(turn_about_middle(grid, scene.axes[0], degrees))
    on_grid = scene.truth.on(grid, resample(reference, grid))
    for voxels in FIELDS:
        yield f"bent by {voxels:g} px", _bent(scene, on_grid, voxels)
    yield "other patient", scene.foreign
    left_right = int(np.argmax(np.abs(grid.affine[0, :3] / grid.spacing)))
    yield "mirrored", on_grid.on(grid, np.ascontiguousarray(np.flip(on_grid.data, left_right)))
    unit = intensity_unit(reference.data)
    reversed_ = np.where(reference.data > 0.05 * unit, np.maximum(1.05 * unit - reference.data, 0), reference.data)
    yield "reversed contrast", reference.on(reference.grid, reversed_.astype(np.float32))
    noise = np.random.default_rng(0).uniform(0, 1, reference.data.shape)
    yield "noise", reference.on(reference.grid, noise.astype(np.float32))
    if scene.post:
        yield "after contrast agent", scene.post


def turn_about_middle(grid: Grid, axis: int, degrees: float) -> NDArray[np.float64]:
    """(4, 4) rotation about the middle of the grid and the direction of one of its axes (Rodrigues)."""
    x, y, z = grid.affine[:3, axis] / np.linalg.norm(grid.affine[:3, axis])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle, centre = np.deg2rad(degrees), grid.affine[:3, :3] @ (np.subtract(grid.shape, 1) / 2) + grid.affine[:3, 3]
    turn = np.eye(4)
    turn[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    return turn


def _bent(scene: Scene, on_grid: Volume, voxels: float) -> Volume:
    """The reference under a smooth field, the same one in all slices, whose length has this 95th percentile."""
    slices = in_plane_last(torch.from_numpy(on_grid.data), scene.axes)
    height, width = slices.shape[1:]
    nodes = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, height // CELLS + 3, width // CELLS + 3))).float()
    field = functional.interpolate(nodes, size=(height, width), mode="bicubic", align_corners=True)[0]
    field = field * (voxels / float(field.square().sum(0).sqrt().quantile(0.95)))
    bent = DisplaceReferenced(field)({"reference": slices, "label": torch.zeros(1, height, width)})["reference"]
    return on_grid.on(on_grid.grid, in_plane_first(bent, scene.axes).numpy())


# Runs


@dataclass(frozen=True)
class _Bench:
    """A degraded case, and the network's results on it.

    Args:
        scene: the case.
        scale: as of `super-resolve --scale`.
        models: by name.
        folder: for files.
    """

    scene: Scene
    scale: str
    models: Mapping[str, Model]
    folder: Path

    def target(self, truth: Volume, name: str = "target") -> Path:
        """File of the low-resolution target."""
        high, low = self.folder / f"{name}_high.nii", self.folder / f"{name}.nii"
        save_nifti(high, truth, "")
        return hftn_sr.degrade(high, low, scale=self.scale, through_plane=self.scene.axes[0], overwrite=True, read=READ)

    def pair(self, target: Path, reference: Volume | None, options: PairOptions) -> PreparedPair:
        """As `super-resolve` prepares it."""
        file = self.folder / "reference.nii"
        if reference is not None:
            save_nifti(file, reference, "")
        chosen = replace(options, scale=hftn_sr_scale(self.scale), through_plane=self.scene.axes[0])
        return prepare_pair(target, file if reference is not None else None, chosen)

    def results(self, pair: PreparedPair) -> dict[str, Tensor]:
        """(n, H, W) by network: the scored slices with the measured band put back."""
        return {name: self._result(replace(pair, scale=model.scale), model.network) for name, model in self.models.items()}

    def _result(self, pair: PreparedPair, network: nn.Module) -> Tensor:
        made = []
        for index in self.scene.scored:
            pred = applied(network, pair.slice(index)[None], pair.share(index)).double()
            made.append(pair.acquired.plane.project(pred, pair.measured(index).double()) * pair.unit)
        return torch.stack(made)

    def interpolated(self, pair: PreparedPair) -> Tensor:
        """(n, H, W), zero-filled."""
        slices = [pair.acquired.plane.interpolate(pair.measured(index), pair.acquired.slice_size) for index in self.scene.scored]
        return torch.stack(slices).double() * pair.unit


def hftn_sr_scale(scale: str) -> tuple[float, float]:
    """`2` or `1x2` for both in-plane axes."""
    first, _, second = scale.partition("x")
    return float(first), float(second or first)


def _chosen(pair: PreparedPair) -> Treatment:
    if pair.on_grid is None:
        return "left out"
    registration = pair.record["placement"].get("registration")
    return "registered" if registration and registration["kept"] else "used"


def measure_references(scene: Scene, scale: str, models: Mapping[str, Model], folder: Path) -> Iterator[Treated]:
    """Every disturbance of the reference, each treated in every way; first that no reference is given, then that it lies in place."""
    bench = _Bench(scene, scale, models, folder)
    target, truth = bench.target(scene.truth), scene.slices(scene.truth)
    alone = bench.pair(target, None, DEFAULT)
    baseline = psnr(bench.interpolated(alone), truth)

    def gains(pair: PreparedPair) -> dict[str, float]:
        return {name: psnr(result, truth) - baseline for name, result in bench.results(pair).items()}

    without = gains(alone)
    yield Treated("none", "left out", {name: {"left out": gain} for name, gain in without.items()}, math.nan, math.nan, [])
    for name, reference in disturbed(scene):
        lies, default = (bench.pair(target, reference, options) for options in (AS_IT_LIES, DEFAULT))
        chosen = _chosen(default)
        by: dict[Treatment, dict[str, float]] = {"left out": without, "used": gains(lies)}
        registration = default.record["placement"].get("registration")
        if chosen == "registered":
            by["registered"] = gains(default)
        elif registration or name == "in place":
            rigid = bench.pair(target, reference, REGISTERED)
            by["registered"] = gains(rigid) if _chosen(rigid) == "registered" else by["used"]
        seen = lies.record["alignment"] or {}
        found = {network: {way: of[network] for way, of in by.items()} for network in models}
        yield Treated(name, chosen, found, seen.get("displacement_voxels", math.nan), seen.get("value", math.nan), default.warnings)


# Lesions


def measure_lesions(scene: Scene, scale: str, models: Mapping[str, Model], folder: Path) -> Iterator[Lesion]:
    """Lesions of each size and sign in the target alone and in the reference alone; the enhancement of a reference after contrast agent."""
    bench = _Bench(scene, scale, models, folder)
    target = bench.target(scene.truth)
    plain = bench.pair(target, scene.reference, DEFAULT)
    before, low = bench.results(plain), bench.interpolated(plain)
    unit = intensity_unit(scene.truth.data)
    for where, diameter, sign in LESIONS:
        if where == "target":
            painted = _painted(scene, scene.truth, diameter, sign)
            pair = bench.pair(bench.target(painted, "painted"), scene.reference, DEFAULT)
            own = scene.slices(painted) - scene.slices(scene.truth)
        else:
            changed = _painted(scene, scene.reference, diameter, sign)
            pair = bench.pair(target, changed, DEFAULT)
            on_grid = [scene.truth.on(scene.truth.grid, resample(each, scene.truth.grid)) for each in (changed, scene.reference)]
            own = (scene.slices(on_grid[0]) - scene.slices(on_grid[1])) * (unit / intensity_unit(scene.reference.data))
        true = _contrasts(scene, own, diameter)
        shares = {name: _contrasts(scene, result - before[name], diameter) for name, result in bench.results(pair).items()}
        shares["zero-filled"] = _contrasts(scene, bench.interpolated(pair) - low, diameter)
        relative = {name: [found / of for found, of in zip(values, true, strict=True)] for name, values in shares.items()}
        yield Lesion(where, diameter, sign, _chosen(pair), relative, [each for each in pair.warnings if each not in plain.warnings])
    if scene.post:
        yield _enhancement(scene, scene.post, bench, target, plain, before)


def _enhancement(scene: Scene, post: Volume, bench: _Bench, target: Path, plain: PreparedPair, before: Mapping[str, Tensor]) -> Lesion:
    """What of the enhancement shows in the result: slope of its change over that of the reference, in voxels that enhance."""
    pair = bench.pair(target, post, DEFAULT)
    both = [scene.slices(scene.truth.on(scene.truth.grid, resample(each, scene.truth.grid))) for each in (post, scene.reference)]
    added = both[0] / intensity_unit(post.data) - both[1] / intensity_unit(scene.reference.data)
    strong = added > CONTRAST / 2
    change = {name: (result - before[name]) / intensity_unit(scene.truth.data) for name, result in bench.results(pair).items()}
    shares = {name: [float((each[strong] * added[strong]).sum() / added[strong].square().sum())] for name, each in change.items()}
    return Lesion("enhancement", 0.0, 1, _chosen(pair), shares, [each for each in pair.warnings if each not in plain.warnings])


def _painted(scene: Scene, volume: Volume, diameter: float, sign: int) -> Volume:
    """A volume on any grid with a disc of CONTRAST at each place, a slice thick to either side, its edge as sharp as voxels are."""
    data, grid = volume.data.copy(), scene.truth.grid
    height = sign * CONTRAST * intensity_unit(volume.data)
    into = np.linalg.solve(grid.affine, volume.affine)  # index of the volume to index of the truth
    reach = np.ceil((diameter / 2 + 2) * grid.spacing.max() / volume.grid.spacing).astype(int)
    for index, places in zip(scene.scored, scene.places, strict=True):
        for row, column in places:
            centre = np.zeros(3)
            centre[list(scene.axes)] = index, row, column
            here = np.round(np.linalg.solve(into, [*centre, 1.0])[:3]).astype(int)
            low, high = np.maximum(here - reach, 0), np.minimum(here + reach + 1, data.shape)
            box = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
            apart = (box @ into[:3, :3].T + into[:3, 3] - centre)[..., list(scene.axes)]
            radius = np.linalg.norm(apart[..., 1:], axis=-1)
            disc = np.clip(diameter / 2 + 0.5 - radius, 0, 1) * (np.abs(apart[..., 0]) <= 1.0)
            part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            data[part] = np.maximum(data[part] + height * disc, 0)
    return volume.on(volume.grid, data.astype(np.float32))


def _contrasts(scene: Scene, change: Tensor, diameter: float) -> list[float]:
    """Mean over each lesion less that around it, of a change (n, H, W)."""
    rows, columns = torch.arange(change.shape[1])[:, None], torch.arange(change.shape[2])
    found = []
    for image, places in zip(change, scene.places, strict=True):
        for row, column in places:
            radius = torch.hypot((rows - row).double(), (columns - column).double())
            inside = radius <= max(diameter / 2 - 0.5, 1.0)
            ring = (radius >= diameter / 2 + RING[0]) & (radius <= diameter / 2 + RING[1])
            found.append(float(image[inside].mean() - image[ring].mean()))
    return found
