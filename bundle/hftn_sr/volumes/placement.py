"""Where a reference lies relative to a target: transform files, and how alike two volumes are in place."""

from __future__ import annotations

import re
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from hftn_sr.errors import Fault
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["chained_transforms", "paired_by_index", "read_transform", "similarity"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's x and y axes point the other way; the change is its own inverse
HDF5 = b"\x89HDF"  # how such a file begins
UNREADABLE = "write it again as an ITK transform file (.txt, .tfm, .mat, .h5)"
DEFORMABLE = "resample the reference onto the target with the tool that made the transform, and give no transform"
SINGULAR = 1e-6  # a map that shrinks volumes this much is a damaged file, not a patient that moved

SAMPLES = 200_000  # some 50 a bin of the joint histogram, so that its entropy hardly depends on the draw
BINS = 64
BRIGHTEST = 99.9  # percentile of the intensities at which the last bin ends: vessels and spikes would stretch the others
ROUNDING = 1e-3  # of a voxel, that a position may lie off
FEWEST = 1000  # samples below which the joint histogram is too empty to say anything


def read_transform(path: str | PathLike[str]) -> NDArray[np.float64]:
    """Read a linear ITK transform, as ITK, ANTs and 3D Slicer write it, that maps a target point to a reference point.

    Args:
        path: .txt, .tfm, .mat, .h5 or .hdf5 file in ITK's LPS frame, of a translation, rigid, similarity or affine transform,
            or of a composite of such.

    Returns:
        (4, 4) matrix in RAS+ mm, target point to reference point, for `Volume.moved`.

    Raises:
        Fault: the file is missing, unreadable or deformable, or its matrix has no inverse.
    """
    path = Path(path)
    if not path.is_file():
        raise Fault(path, "no such transform file", "give the path of an ITK transform file (.txt, .tfm, .mat, .h5)")
    transform = _transform(path)
    if transform.GetInputSpaceDimension() != 3 or not transform.IsLinear():
        finding = f"{transform.GetNameOfClass()} is not a linear transform of 3D points, and only such a transform can be applied here"
        raise Fault(path, finding, DEFORMABLE)
    matrix = _matrix(transform)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < SINGULAR:
        raise Fault(path, "the matrix of this transform is singular or not finite", UNREADABLE)
    return LPS_TO_RAS @ matrix @ LPS_TO_RAS


def chained_transforms(transform: str | PathLike[str] | None, inverse_transform: str | PathLike[str] | None) -> NDArray[np.float64]:
    """First the inverse of `inverse_transform`, then `transform`, each an ITK file as for `read_transform` or empty for the identity.

    For a file that leads from the reference to the target, or for two images registered to a third, whose points both files begin at.

    Returns:
        (4, 4) matrix in RAS+ mm, target point to reference point, for `Volume.moved`.

    Raises:
        Fault: see `read_transform`.
    """
    first, second = (read_transform(path) if path else np.eye(4) for path in (inverse_transform, transform))
    return second @ np.linalg.inv(first)


def paired_by_index(target: Volume, reference: Volume, grid: Grid | None = None, through_plane: int | None = None) -> tuple[Volume, Volume]:
    """Both volumes with the slices that they have in common, slice i on slice i, for files whose headers do not say where they lie.

    Surplus slices at the end of the longer volume are left out and noted. The reference gets the affine of `grid`, so that it lies on it
    voxel by voxel: two images of one field of view, from more or less of k-space.

    Args:
        target: low-resolution, or of the same resolution without a grid.
        reference: image of another contrast.
        grid: the target's field of view with the reference's in-plane matrix; None for the target's own grid.
        through_plane: array axis along which slices lie; None for the target's own.

    Raises:
        Fault: the in-plane sizes of the reference are not those of the grid.
    """
    through_plane = target.grid.through_plane() if through_plane is None else through_plane
    wanted = grid or target.grid
    sizes, others, needed = (np.delete(each, through_plane).tolist() for each in (target.data.shape, reference.data.shape, wanted.shape))
    if others != needed:
        found = f"in-plane sizes {others}, the target {target.path} has {sizes}"
        if grid is None:
            fix = 'pair images of one matrix, or place them by their headers ("grid": "header" in the datalist)'
            raise Fault(reference.path, f"{found}: they cannot be paired by index", fix)
        fix = "pair scans of one field of view; a scan of full resolution is made a target by hftn-sr degrade"
        raise Fault(reference.path, f"{found} and needs {needed}: they cannot be paired by index", fix)
    counts = [volume.data.shape[through_plane] for volume in (target, reference)]
    common = tuple(slice(min(counts) if axis == through_plane else None) for axis in range(3))
    notes = (f"{counts[0]} and {counts[1]} slices paired up to the shorter, {min(counts)}",) if counts[0] != counts[1] else ()
    affines = (target.affine, wanted.affine)
    first, second = (
        replace(volume, data=np.ascontiguousarray(volume.data[common]), affine=affine, notes=volume.notes + notes)
        for volume, affine in zip((target, reference), affines, strict=True)
    )
    return first, second


def similarity(target: Volume, reference: Volume) -> float:
    r"""Normalised mutual information of two volumes where they overlap.

    .. math:: NMI = \frac{H(a) + H(b)}{H(a, b)}

    H is the entropy of the intensities, here of histograms with 64 bins from the minimum to the 99.9th percentile. The reference b is
    interpolated linearly at no more than 200,000 voxels of the target a, the same ones in every call.

    Source: Studholme, Hill and Hawkes 1999, doi 10.1016/S0031-3203(98)00091-0.

    Returns:
        1 (independent, constant, or no overlap to speak of) to 2 (one decides the other).
    """
    index = _sampled(target.data.shape)
    to_reference = np.linalg.inv(reference.affine) @ target.affine
    place = index @ to_reference[:3, :3].T + to_reference[:3, 3]
    reach = np.where(np.equal(reference.data.shape, 1), 0.5, ROUNDING)  # a single slice is as thick as its voxels
    inside = ((place >= -reach) & (place <= np.subtract(reference.data.shape, 1) + reach)).all(axis=1)
    if inside.sum() < FEWEST:
        return 1.0
    a = target.data[tuple(index[inside].T)]
    b = _interpolated(reference.data, place[inside])
    joint = np.histogram2d(_binned(a), _binned(b), bins=BINS, range=[[0, BINS], [0, BINS]])[0]
    shared = _entropy(joint)
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / shared if shared > 0 else 1.0


def _transform(path: Path) -> Any:
    """The one ITK transform of the file, in LPS mm."""
    import itk  # here, because it takes a second to load

    try:
        content = path.read_bytes()
        if not _complete(content):
            raise ValueError("the file ends before the centre of its transform")
        with TemporaryDirectory() as folder:
            known = Path(folder) / path.name
            known.write_bytes(_named_as_itk_knows(content))
            transforms = list(itk.transformread(str(known)))
    except Exception as error:  # ITK has no single exception for a damaged file
        raise Fault(path, "this cannot be read as an ITK transform file", UNREADABLE) from error
    if len(transforms) != 1:
        raise Fault(path, f"expected one transform or one composite, got {len(transforms)} transforms", "write one transform per file")
    return transforms[0]


def _complete(file: bytes) -> bool:
    """Whether a text or .mat file reaches to the end of its fixed parameters; ITK takes a missing centre for the origin."""
    if b"\0" not in file:
        expected = re.findall(rb"^Transform:(?! *Composite)", file, re.MULTILINE)
        return len(re.findall(rb"^FixedParameters:", file, re.MULTILINE)) == len(expected)  # ITK itself counts the numbers
    if file.startswith(HDF5):
        return True  # HDF5 notices by itself
    name = file.find(b"fixed\0")
    return name >= 16 and len(file) >= name + 6 + 8 * int.from_bytes(file[name - 16 : name - 12], "little")  # rows of doubles


def _named_as_itk_knows(file: bytes) -> bytes:
    """The same file, with the base class of ITK's linear transforms named as the affine transform, which has the same parameters.

    ITK's own tools write the base class, but its Python package cannot read it.
    """
    padding = b"\0" if b"\0" in file else b" "  # lengths and offsets in a binary file must stay
    return re.sub(rb"MatrixOffsetTransformBase(_(?:double|float)_3_3)", rb"AffineTransform\1" + padding * 10, file)


def _matrix(transform: Any) -> NDArray[np.float64]:
    """The (4, 4) matrix of a linear transform, from where it takes the origin and the unit vectors."""
    origin = np.asarray(transform.TransformPoint([0.0, 0.0, 0.0]))
    axes = [np.asarray(transform.TransformPoint(point)) - origin for point in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([*axes, origin])
    return matrix


def _sampled(shape: tuple[int, ...]) -> NDArray[np.int_]:
    """(N, 3) voxel indices, all of a small volume and always the same draw of a large one."""
    size = int(np.prod(shape))
    chosen = np.arange(size) if size <= SAMPLES else np.random.default_rng(0).integers(0, size, SAMPLES)
    return np.column_stack(np.unravel_index(chosen, shape))


def _interpolated(data: NDArray[np.float32], place: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) values at the (N, 3) fractional voxel indices, by linear interpolation."""
    half = np.maximum(np.subtract(data.shape, 1) / 2, 0.5)
    where = torch.from_numpy((place / half - 1)[:, ::-1].astype(np.float32))  # grid_sample counts from the last axis, -1 to 1
    data = np.asarray(data, dtype=np.float32)
    seen = data.flags.writeable and min(data.strides) > 0  # by torch, which warns of arrays that cannot be written
    volume = torch.from_numpy(data if seen else data.copy())
    values = grid_sample(volume[None, None], where[None, None, None], padding_mode="border", align_corners=True)
    interpolated: NDArray[np.float32] = values.numpy().ravel()
    return interpolated


def _binned(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intensities as positions in the histogram."""
    low, high = values.min(), np.percentile(values, BRIGHTEST)
    place: NDArray[np.float64] = np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1) * (BINS - 0.5)
    return place


def _entropy(counts: NDArray[np.float64]) -> float:
    """Entropy in nats of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
