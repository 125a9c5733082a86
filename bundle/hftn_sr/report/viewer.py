"""The part of a case that the viewer on the page opens.

A page opened from a folder cannot read other files, so the volumes come as a script: gzipped NIfTI files in base64, each of at most
`VOXELS` voxels of one byte. The result's own file stays as it is.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from hftn_sr.pictures import white
from hftn_sr.report.case import Images
from hftn_sr.report.pictures import Box, Extent, cropped
from hftn_sr.volumes.volume import Volume

__all__ = ["VOXELS", "Embedded", "embed"]

VOXELS = 2_000_000  # of each of the three volumes; gzip and base64 make at most 8 MB of the three
LEVELS = 255
PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Embedded:
    """A script that gives the page three volumes on one grid.

    Args:
        script: sets `hftnVolumes[key]`.
        first: index of the first slice that is in it.
        count: number of slices.
        shape: voxels of each volume.
    """

    script: bytes
    first: int
    count: int
    shape: tuple[int, int, int]


def embed(images: Images, extent: Extent, key: str) -> Embedded:
    """Target (zero-filled), reference and result around the middle of the head, cut to the head.

    Args:
        images: images of the case.
        extent: place of the head.
        key: name of the volumes on the page.
    """
    axis, depth = images.through_plane, images.result.data.shape[images.through_plane]
    box = _bounded(extent.box, axis)
    area = int(np.prod([part.stop - part.start for other, part in enumerate(box) if other != axis]))
    count = max(min(depth, VOXELS // area), 1)
    first = int(np.clip(extent.middle - count // 2, 0, depth - count))
    slab = images.slab(first, count)
    here: Box = tuple(slice(0, count) if other == axis else part for other, part in enumerate(box))  # type: ignore[assignment]
    target, result = (cropped(volume, here) for volume in (slab.zero_filled, slab.result))
    brightest = white(target.data)
    volumes = {"target": _bytes(target, brightest), "reference": None, "result": _bytes(result, brightest)}
    if slab.reference:
        reference = cropped(slab.reference, here)
        volumes["reference"] = _bytes(reference, white(reference.data))
    plane, sign = nib.io_orientation(result.affine)[axis]
    content = {"plane": PLANES[int(plane)], "first": first, "flipped": bool(sign < 0), "volumes": volumes}
    script = f"(globalThis.hftnVolumes ??= {{}})[{json.dumps(key)}] = {json.dumps(content)};\n"
    return Embedded(script.encode("ascii"), first, count, result.grid.shape)


def _bounded(box: Box, through_plane: int) -> Box:
    """`box` cut evenly from both sides until one slice of it has no more than VOXELS."""
    sizes = [part.stop - part.start for part in box]
    area = np.prod([size for axis, size in enumerate(sizes) if axis != through_plane])
    shrink = min(1.0, float(np.sqrt(VOXELS / area)))
    parts = list(box)
    for axis in set(range(3)) - {through_plane}:
        size = int(sizes[axis] * shrink)
        start = box[axis].start + (sizes[axis] - size) // 2
        parts[axis] = slice(start, start + size)
    return parts[0], parts[1], parts[2]


def _bytes(volume: Volume, brightest: float) -> str:
    """NIfTI of one byte per voxel from 0 to `brightest`, gzipped, in base64; equal voxels give equal bytes."""
    levels = (np.clip(volume.data / brightest, 0, 1) * LEVELS).round().astype(np.uint8)
    image = nib.Nifti1Image(levels, volume.affine, dtype=np.uint8)
    image.header.set_slope_inter(brightest / LEVELS, 0)
    image.header.set_xyzt_units("mm")
    image.header["cal_max"] = brightest
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)).decode("ascii")
