"""Read a pair and simulate its low-resolution target: MONAI dictionary transforms around `volumes` and `degradation`.

Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform, Transform

from hftn_sr.errors import Fault
from hftn_sr.kspace import Decomposition
from hftn_sr.training.protocols import choose_protocol, restore
from hftn_sr.volumes.placement import chained_transforms, paired_by_index
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, degrade, intensity_unit

__all__ = ["DegradePaird", "LoadPaird", "RandDegradePaird", "RestoreIntensityd"]

Case = Mapping[Hashable, Any]


class LoadPaird(Transform):
    """Read a high-resolution target and its reference, the reference on the target's grid, both with intensities around 0 to 1.

    A case is `target` and `reference` (NIfTI or fastMRI files) and optionally `transform`, an ITK file that maps target points to reference
    points, and `inverse_transform`, one whose inverse comes before that, or `grid`, which is "index" where slice i goes with slice i
    whatever the headers say. It comes back with `label` and `reference` (1, H, W, D), float32, through-plane last, H and W cropped to
    multiples of scale; the label is divided by the brightness of its own low-resolution image, the reference by that of its own voxels.

    Args:
        scale: upscaling factor s that the images will be used for.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Raises Fault where a file cannot be used."""
        target, reference = read_volume(data["target"]), read_volume(data["reference"])
        if data.get("grid") == "index":
            target, reference = paired_by_index(target, reference)
        files = [data.get(name) for name in ("transform", "inverse_transform")]
        if any(files):
            reference = reference.moved(chained_transforms(*files))
        through_plane = target.grid.through_plane()
        target = crop_to_multiple(target, self.scale, through_plane)
        on_grid = resample(reference, target.grid)
        if not on_grid.any():
            raise Fault(reference.path, "lies wholly outside the target", "check that both files belong to one patient and visit")
        label = target.data / intensity_unit(degrade(target, self.scale, through_plane).data)
        images = {"label": label, "reference": on_grid / intensity_unit(on_grid)}
        through, *in_plane = target.grid.slice_axes(through_plane)
        # Each slice in one piece in memory: training takes them one by one, and out of interleaved ones that means reading them all.
        slices = {key: np.ascontiguousarray(image.transpose(through, *in_plane)) for key, image in images.items()}
        return {**data, **{key: torch.from_numpy(image).movedim(0, -1)[None] for key, image in slices.items()}}


class DegradePaird(Transform):
    """Make the network's `image` (3, H, W) or (3, H, W, D) from whole high-resolution `label` and `reference`.

    Args:
        scale: loss of in-plane resolution s.
        decomposition: see `kspace.decompose`.
        magnitude: the low-resolution target is stored as a magnitude.
        protocol: how resolution is lost and in which unit the network sees it, see `protocols`.
        crop: for the protocol `sanet`, side of its central square in voxels; None for the published 320.

    Raises:
        ValueError: no such protocol, or a crop that it does not have.
    """

    def __init__(
        self,
        scale: int,
        decomposition: Decomposition = "band",
        magnitude: bool = False,
        protocol: str = "corrected",
        crop: int | None = None,
    ) -> None:
        self.scale, self.decomposition, self.magnitude = scale, decomposition, magnitude
        self.protocol = choose_protocol(protocol, crop)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Adds `image` and what brings it back to intensities, `mean` and `std` (1, 1, 1) or (1, 1, 1, D); drops `reference`."""
        label, reference = (torch.as_tensor(data[key]) for key in ("label", "reference"))
        prepared = self.protocol.prepare(label, reference, self.scale, self.decomposition, self.magnitude)
        kept = {key: value for key, value in data.items() if key != "reference"}
        return {**kept, "image": prepared.image, "label": prepared.label, "mean": prepared.mean, "std": prepared.std}


class RandDegradePaird(RandomizableTransform):
    """`DegradePaird`, the low-resolution target being a magnitude with probability `magnitude_prob` (always under `sanet`)."""

    def __init__(
        self,
        scale: int,
        decomposition: Decomposition = "band",
        magnitude_prob: float = 0.5,
        protocol: str = "corrected",
        crop: int | None = None,
    ) -> None:
        super().__init__(prob=magnitude_prob)
        self.signed = DegradePaird(scale, decomposition, magnitude=False, protocol=protocol, crop=crop)
        self.magnitude = DegradePaird(scale, decomposition, magnitude=True, protocol=protocol, crop=crop)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `DegradePaird`."""
        self.randomize(None)
        return self.magnitude(data) if self._do_transform else self.signed(data)


class RestoreIntensityd(MapTransform):
    """Bring the target's channel, the first one, of a batch back to intensities by its `mean` and `std`, see `protocols`.

    Args:
        keys: of batches (B, C, H, W, D); the reference's channels of `image` stay as they are.
    """

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only those keys change."""
        mean, std = (torch.as_tensor(data[key]) for key in ("mean", "std"))
        restored = {}
        for key in self.keys:
            target, others = torch.as_tensor(data[key]).tensor_split([1], dim=1)
            restored[key] = torch.cat([restore(target, mean.to(target.device), std.to(target.device)), others], dim=1)
        return {**data, **restored}
