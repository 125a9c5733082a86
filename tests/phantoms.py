"""Tiny images that are known at every point in space, and NIfTI files of them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch

from hftn_sr.acquisition import Acquisition, Full, Slices
from hftn_sr.volumes.volume import Grid, Volume

CENTRE = np.array([3.0, -7.0, 11.0])  # of the phantom, RAS+ mm
BLOBS = (((0, 0, 0), 14.0, 1.0), ((7, 5, 1), 3.0, 0.5), ((-6, 8, -2), 2.5, 0.6), ((4, -9, 2), 4.0, -0.4), ((-9, -5, 0), 2.0, 0.4))


def oblique(spacing, degrees=(8.0, -5.0, 12.0), shape=None):
    """Affine with these voxel sizes in mm, turned about the three axes; a grid of `shape` is centred on the phantom."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (other for other in range(3) if other != axis)
        about = np.eye(3)
        about[first, first] = about[second, second] = np.cos(angle)
        about[first, second], about[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ about
    affine = np.eye(4)
    affine[:3, :3] = turn * np.asarray(spacing, dtype=float)
    affine[:3, 3] = CENTRE - (affine[:3, :3] @ (np.subtract(shape, 1) / 2) if shape is not None else 0)
    return affine


def points(grid):
    """RAS+ positions (X, Y, Z, 3) of a grid's voxels in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def anatomy(where):
    """Smooth blobs, between 0 and about 1.5, at positions (..., 3) in mm."""
    total = np.zeros(where.shape[:-1])
    for offset, width, height in BLOBS:
        total += height * np.exp(-((where - CENTRE - np.array(offset)) ** 2).sum(-1) / (2 * width**2))
    return total


def contrast(where, kind="target"):
    """The anatomy as one of two contrasts that decide each other."""
    a = anatomy(where)
    return (300 * a + 5 if kind == "target" else 500 * a * (2.2 - a) + 8).astype(np.float32)


def phantom(shape=(40, 44, 4), spacing=(1.0, 1.0, 3.0), kind="target", degrees=(8.0, -5.0, 12.0)):
    """The phantom as a volume in memory."""
    grid = Grid(shape, oblique(spacing, degrees, shape))
    return Volume(contrast(points(grid), kind), grid.affine)


def thick_pair(thickness=5.0, in_plane=1, degrees=(8.0, -5.0, 12.0)):
    """A target of thick slices, its truth of 1 mm, and a sagittal reference of 1 mm of another contrast."""
    shape = (36, 32, 20)
    fine = Grid(shape, oblique((1, 1, 1), degrees, shape))
    truth = Volume(contrast(points(fine)).astype(np.float32), fine.affine)
    kept = Acquisition((Full(), Full(), Slices(thickness, 5.0)))
    if in_plane > 1:
        kept = Acquisition((*Acquisition.from_scale(in_plane, shape[:2]).axes, Slices(thickness, 5.0)))
    data = kept.simulate(torch.from_numpy(truth.data)).numpy()
    target = Volume(data, kept.measured_affine(fine.affine, shape))
    sagittal = Grid((34, 30, 48), oblique((1, 1, 1), degrees, (48, 34, 30))[:, [1, 2, 0, 3]])
    reference = Volume(contrast(points(sagittal), "reference").astype(np.float32), sagittal.affine)
    return target, reference, truth


def write(path, data, affine=None, dtype=None, codes=(1, 1), kind=nib.Nifti1Image, **header):
    """Write an array by nibabel, which is not what the package saves with; `header` sets fields last."""
    data = np.asarray(data)
    data = data.astype(dtype or data.dtype)
    affine = np.eye(4) if affine is None else affine
    image = kind(data, affine, dtype=data.dtype)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    if header:
        raw = bytearray(path.read_bytes())
        size = image.header.template_dtype.itemsize
        changed = type(image.header)(bytes(raw[:size]), check=False)
        for field, value in header.items():
            changed[field] = value
        raw[:size] = changed.binaryblock
        path.write_bytes(raw)
    return path


def write_volume(path, volume):
    return write(path, volume.data, volume.affine)
