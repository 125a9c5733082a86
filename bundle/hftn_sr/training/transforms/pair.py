"""Read a pair and simulate its low-resolution target: MONAI dictionary transforms around `volumes` and `protocols`.

Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform, Transform
from torch import Tensor

from hftn_sr.errors import Fault
from hftn_sr.kspace import Decomposition
from hftn_sr.training.protocols import choose_protocol, restore
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.placement import chained_transforms, paired_by_index
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, degrade, intensity_unit

__all__ = ["DegradePaird", "LoadPaird", "RandDegradePaird", "RestoreIntensityd"]

Case = Mapping[Hashable, Any]


class LoadPaird(Transform):
    """Read a high-resolution target and its reference, the reference on the target's grid, both with intensities around 0 to 1.

    A case has `target` and `reference`, files that `read_volume` takes. Optional: `transform`, an ITK file that maps target points to
    reference points; `inverse_transform`, an ITK file that is inverted and applied first; `grid: index`, which pairs slice i with slice i
    and ignores the headers; `read`, a mapping of `ReadOptions`. The result has `label` and `reference` (1, H, W, D), float32, through-plane
    last, H and W cropped to multiples of scale. The label is divided by the `intensity_unit` of its low-resolution image, the reference by
    its own.

    Args:
        scale: upscaling factor s; None for any acquisition: sizes are then multiples of 4, and the label is divided by its own unit.
        placed: add `affine` (4, 4), which maps a voxel of the label to RAS+ mm, and `unit`, by which the label was divided.
    """

    def __init__(self, scale: int | None, placed: bool = False) -> None:
        self.scale, self.placed = scale, placed

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Raise Fault, with the case in front, if a file cannot be used."""
        try:
            images = self._loaded(data)
        except Fault as fault:
            raise (_told_for_datalists(fault).of_case(str(data["case"])) if "case" in data else fault) from None
        kept = {key: value for key, value in data.items() if key != "read"}
        return {**kept, **images}

    def _loaded(self, data: Case) -> dict[Hashable, Tensor]:
        options = ReadOptions(**data.get("read", {}))
        target, reference = (read_volume(data[role], options) for role in ("target", "reference"))
        if data.get("grid") == "index":
            target, reference = paired_by_index(target, reference)
        files = [data.get(name) for name in ("transform", "inverse_transform")]
        if any(files):
            reference = reference.moved(chained_transforms(*files))
        through_plane = target.grid.through_plane()
        target = crop_to_multiple(target, self.scale or 4, through_plane)
        on_grid = resample(reference, target.grid)
        if not on_grid.any():
            raise Fault(reference.path, "lies wholly outside the target", "check that both files belong to one patient and visit")
        unit = intensity_unit((degrade(target, self.scale, through_plane) if self.scale else target).data)
        images: dict[Hashable, Any] = {"label": target.data / unit, "reference": on_grid / intensity_unit(on_grid)}
        through, *in_plane = target.grid.slice_axes(through_plane)
        # Each slice contiguous in memory: training takes one slice at a time, and interleaved slices would all be read for it.
        slices = {key: np.ascontiguousarray(image.transpose(through, *in_plane)) for key, image in images.items()}
        loaded = {key: torch.from_numpy(image).movedim(0, -1)[None] for key, image in slices.items()}
        if self.placed:
            affine = torch.from_numpy(target.affine[:, [*in_plane, through, 3]].copy())
            loaded |= {"affine": affine, "unit": torch.tensor(float(unit))}
        return loaded


def _told_for_datalists(fault: Fault) -> Fault:
    """The same fault with the key of the datalist that cures it, where the cure is an option of the command."""
    fix = re.sub(r"--(nan-to-num|magnitude|frame|assume-affine)(?: (N|sform|qform|spacing))?", _key_of_datalist, fault.fix)
    return type(fault)(fault.path, fault.finding, fix)


def _key_of_datalist(option: re.Match[str]) -> str:
    value = "true" if option[2] is None else option[2] if option[2] == "N" else f'"{option[2]}"'
    return f'"read": {{"{option[1].replace("-", "_")}": {value}}} in its entry of datalist.json'


class DegradePaird(Transform):
    """Make the network's `image` (3, H, W) or (3, H, W, D) from whole high-resolution `label` and `reference`.

    Args:
        scale: loss of in-plane resolution s.
        decomposition: see `kspace.decompose`.
        magnitude: store the low-resolution target as a magnitude.
        protocol: simulation of the low resolution and intensity unit, see `protocols`.
        crop: side of the central square of `sanet` in voxels; None for the published 320.

    Raises:
        ValueError: no such protocol, or a crop for a protocol without one.
    """

    def __init__(
        self,
        scale: int,
        decomposition: Decomposition = "band",
        magnitude: bool = False,
        protocol: str = "corrected",
        crop: int | None = None,
    ) -> None:
        self.scale, self.decomposition, self.magnitude, self.protocol, self.crop = scale, decomposition, magnitude, protocol, crop
        self._protocol = choose_protocol(protocol, crop)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Add `image`, and `mean` and `std` (1, 1, 1) or (1, 1, 1, D) that restore intensities; drop `reference`."""
        label, reference = (torch.as_tensor(data[key]) for key in ("label", "reference"))
        try:
            prepared = self._protocol.prepare(label, reference, self.scale, self.decomposition, self.magnitude)
        except ValueError as error:
            if "case" not in data:
                raise
            side = min(label.shape[1:3]) // (2 * self.scale) * 2 * self.scale
            fix = f"--protocol_crop {side}, or take the case out of datalist.json"
            raise Fault(str(data["case"]), str(error).split(";")[0], fix) from error
        kept = {key: value for key, value in data.items() if key != "reference"}
        if "affine" in kept:  # the centre may have been cropped
            start = [(before - after) // 2 for before, after in zip(label.shape[1:3], prepared.label.shape[1:3], strict=True)]
            kept["affine"] = _shifted(torch.as_tensor(kept["affine"]), start)
        return {**kept, "image": prepared.image, "label": prepared.label, "mean": prepared.mean, "std": prepared.std}


def _shifted(affine: Tensor, start: list[int]) -> Tensor:
    """The affine of what remains when the first `start` voxels of H and W are cropped."""
    moved = affine.clone()
    moved[:3, 3] += affine[:3, :2] @ torch.tensor(start, dtype=affine.dtype)
    return moved


class RandDegradePaird(RandomizableTransform):
    """`DegradePaird` whose low-resolution target is a magnitude with probability `magnitude_prob` (always under `sanet`).

    Args:
        scale: see `DegradePaird`.
        decomposition: see `DegradePaird`.
        magnitude_prob: probability of a magnitude image.
        protocol: see `DegradePaird`.
        crop: see `DegradePaird`.
    """

    def __init__(
        self,
        scale: int,
        decomposition: Decomposition = "band",
        magnitude_prob: float = 0.5,
        protocol: str = "corrected",
        crop: int | None = None,
    ) -> None:
        super().__init__(prob=magnitude_prob)
        self.scale, self.decomposition, self.magnitude_prob, self.protocol, self.crop = scale, decomposition, magnitude_prob, protocol, crop
        self.signed = DegradePaird(scale, decomposition, magnitude=False, protocol=protocol, crop=crop)
        self.magnitude = DegradePaird(scale, decomposition, magnitude=True, protocol=protocol, crop=crop)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `DegradePaird`."""
        self.randomize(None)
        return self.magnitude(data) if self._do_transform else self.signed(data)


class RestoreIntensityd(MapTransform):
    """Restore intensities in the target's channel, the first one, by `mean` and `std`, see `protocols`.

    Args:
        keys: batches (B, C, H, W, D); the reference's channels of `image` stay unchanged.
    """

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only those keys change."""
        mean, std = (torch.as_tensor(data[key]) for key in ("mean", "std"))
        restored = {}
        for key in self.keys:
            target, others = torch.as_tensor(data[key]).tensor_split([1], dim=1)
            restored[key] = torch.cat([restore(target, mean.to(target.device), std.to(target.device)), others], dim=1)
        return {**data, **restored}
