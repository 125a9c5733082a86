"""Options of a run and of a pair, and the one place where they are assembled from what a user asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hftn_sr.acquisition import parse_sizes
from hftn_sr.errors import UsageFault, check_choice
from hftn_sr.kspace import Decomposition
from hftn_sr.networks.precision import ChosenPrecision, choose_precision, choose_tta
from hftn_sr.networks.weights import check_model
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.reading import is_fastmri

__all__ = [
    "PLACING",
    "OutputFormat",
    "Overwrite",
    "PairBy",
    "PairOptions",
    "Register",
    "RunOptions",
    "Sizes",
    "UnfitReference",
    "as_sizes",
    "choose_device",
    "run_options",
]

PLACING = "place it by --reference-transform"

Overwrite = Literal["never", "stale", "always"]
OutputFormat = Literal["nifti", "dicom"]
Register = Literal["auto", "none", "rigid"]
UnfitReference = Literal["leave-out", "use"]
PairBy = Literal["auto", "header", "index"]
Sizes = str | float | Sequence[float]  # one for all axes, or one for each in the array's order; "1x2" as on the command line


@dataclass(frozen=True)
class PairOptions:
    """How two files become a pair.

    Args:
        scale: upscaling factors along the two in-plane axes, in the array's order, or one for both; None finds them out.
        acquired: matrix that was measured of the target's file, in the array's order; None finds it out.
        voxel: voxel sizes of the result in mm, two in-plane or all three, in the array's order; None finds them out.
        slice_thickness: of the target's slices in mm; None takes it from its header, else the distance between slices.
        through_plane: the target's through-plane array axis 0, 1 or 2; None takes the one whose voxel size differs.
        reference_transform: ITK file that maps a target point to a reference point, applied before any registration; None for none.
        register: `auto` registers a reference that does not lie in place, and keeps that only if its edges then lie better; `rigid`
            registers every reference, and keeps that if the pair becomes more similar; `none` registers none.
        unfit_reference: `leave-out` leaves out a reference that would make the result worse than using none, covers too little of the
            target or has no signal there; `use` uses the first kind and refuses the other two.
        pair_by: `header` places the reference by the two headers; `index` puts slice i on slice i, see `paired_by_index`; `auto` is `index`
            for two fastMRI files without a transform, as their headers do not say where they lie, and `header` otherwise.
        decomposition: how the reference is split, see `kspace.decompose`; must be the one that the network was trained with.
        read: how ambiguous files are read.
        placing: how a transform is given, in the words of a cure.

    Raises:
        UsageFault: a value is unknown, or two options exclude each other.
    """

    scale: tuple[float, float] | None = None
    acquired: tuple[int, int] | None = None
    voxel: tuple[float, ...] | None = None
    slice_thickness: float | None = None
    through_plane: int | None = None
    reference_transform: Path | None = None
    register: Register = "auto"
    unfit_reference: UnfitReference = "leave-out"
    pair_by: PairBy = "auto"
    decomposition: Decomposition = "band"
    read: ReadOptions = field(default_factory=ReadOptions)
    placing: str = PLACING

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", as_sizes("--scale", self.scale, 2))
        object.__setattr__(self, "acquired", as_sizes("--acquired", self.acquired, 2))
        object.__setattr__(self, "voxel", as_sizes("--voxel", self.voxel, 2, 3))
        if self.acquired and all(size == int(size) for size in self.acquired):
            object.__setattr__(self, "acquired", tuple(int(size) for size in self.acquired))
        _check_loss(self.scale, self.acquired, self.voxel, self.slice_thickness)
        check_choice("--register", self.register, get_args(Register))
        check_choice("--unfit-reference", self.unfit_reference, get_args(UnfitReference))
        check_choice("--through-plane", self.through_plane, (0, 1, 2, None))
        check_choice("--pair-by", self.pair_by, get_args(PairBy))
        if self.pair_by == "index" and self.reference_transform:
            raise UsageFault("--reference-transform", "does not go with --pair-by index", "--pair-by header, or leave one out")

    def by_index(self, target: Path, reference: Path) -> bool:
        """Whether these two files are paired by index."""
        positions_unknown = is_fastmri(target) and is_fastmri(reference) and not self.reference_transform
        return self.pair_by == "index" or (self.pair_by == "auto" and positions_unknown)


@dataclass(frozen=True)
class RunOptions:
    """How cases are run. `run_options` makes one from what a user asks for.

    Args:
        model: `base`, `small`, another shipped model, or a weights file.
        device: PyTorch device on which the network runs.
        overwrite: treatment of an output that exists: `never` keeps it, `always` redoes it, `stale` redoes it if inputs, model or options
            differ from those in its record.
        dry_run: whether to check and report only, and write nothing.
        data_consistency: whether what was measured replaces that of the network's output in-plane.
        preview: whether a picture is written beside the result.
        pair: how files become a pair.
        precision: arithmetic of the network, see `networks.precision.choose_precision`.
        tta: number of mirror images and transposes over which each slice is averaged, see `networks.precision.WithTTA`; 1 for none.
        output_format: `nifti` writes a file; `dicom` writes a folder with a derived series, of a target that is DICOM.
        uncertainty: whether the expected absolute error is written beside the result, see `inference.uncertainty`.
        added: whether the detail beyond what was measured is written beside the result, see `inference.added`.

    Raises:
        UsageFault: `overwrite` or `output_format` is unknown, or a flag is neither True nor False.
    """

    model: str = "base"
    device: str = "cpu"
    overwrite: Overwrite = "never"
    dry_run: bool = False
    data_consistency: bool = True
    preview: bool = True
    pair: PairOptions = field(default_factory=PairOptions)
    precision: ChosenPrecision = "float32"
    tta: int = 1
    output_format: OutputFormat = "nifti"
    uncertainty: bool = False
    added: bool = False

    def __post_init__(self) -> None:
        check_choice("--overwrite", self.overwrite, get_args(Overwrite))
        check_choice("--output-format", self.output_format, get_args(OutputFormat))
        check_choice("--uncertainty", self.uncertainty, (True, False))
        check_choice("--added", self.added, (True, False))


def run_options(
    model: str = "base",
    device: str | torch.device = "auto",
    precision: str = "auto",
    tta: int | None = None,
    *,
    overwrite: Overwrite = "never",
    dry_run: bool = False,
    data_consistency: bool = True,
    preview: bool = True,
    output_format: OutputFormat = "nifti",
    uncertainty: bool = False,
    added: bool = False,
    **pair: Any,
) -> RunOptions:
    """The options of a run, with all that was left to `auto` or None chosen. The command, the API and the workflow come through here.

    Args:
        model: as for `RunOptions`.
        device: as for `choose_device`.
        precision: `auto`, `float32` or `bfloat16`.
        tta: 1, 2, 4 or 8; None takes 4 for `base` and `correspondence`, 1 for other weights.
        overwrite: as for `RunOptions`.
        dry_run: as for `RunOptions`.
        data_consistency: as for `RunOptions`.
        preview: as for `RunOptions`.
        output_format: as for `RunOptions`.
        uncertainty: as for `RunOptions`.
        added: as for `RunOptions`.
        pair: keyword arguments of `PairOptions`.

    Raises:
        UsageFault: a value is unknown, there is no such model, or CUDA is missing.
    """
    check_model(model)
    where = choose_device(device)
    return RunOptions(
        model,
        where,
        overwrite,
        dry_run,
        data_consistency,
        preview,
        PairOptions(**pair),
        choose_precision(precision, where, model),
        choose_tta(tta, model),
        output_format,
        uncertainty,
        added,
    )


def choose_device(device: str | torch.device) -> str:
    """Device on which the network runs.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or a PyTorch device; `auto` is CUDA where there is one.

    Raises:
        UsageFault: the word is unknown, or CUDA was asked for and there is none.
    """
    if isinstance(device, torch.device) and device.type != "cuda":
        return str(device)
    device = str(device)
    kind = "cuda" if re.fullmatch(r"cuda:\d+", device) else device
    check_choice("--device", kind, ("auto", "cpu", "cuda"))
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageFault("--device", "cuda was asked for, PyTorch sees no CUDA device", "--device cpu, or install a CUDA build of PyTorch")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def as_sizes(option: str, given: Sizes | None, *counts: int) -> tuple[float, ...] | None:
    """An option of one size or one for each axis, as a tuple; None stays.

    Args:
        option: its name, for the error.
        given: for example 2, "1x2", (256, 205).
        counts: numbers of axes that it may be for; one size stands for the first of them.

    Raises:
        UsageFault: not positive numbers, or not so many.
    """
    if given is None:
        return None
    text = given if isinstance(given, str) else "x".join(map(str, [given] if isinstance(given, (int, float)) else given))
    sizes = parse_sizes(option, text)
    sizes = sizes * counts[0] if len(sizes) == 1 else sizes
    if len(sizes) not in counts:
        raise UsageFault(option, f"{text!r} ({len(sizes)} numbers, need {' or '.join(map(str, counts))})", f"{option} 2 or {option} 1x2")
    return sizes


def _check_loss(
    scale: tuple[float, ...] | None, acquired: tuple[float, ...] | None, voxel: tuple[float, ...] | None, thickness: float | None
) -> None:
    if scale and voxel:
        raise UsageFault("--voxel", "does not go with --scale", "leave one of them out")
    if scale and min(scale) < 1:
        raise UsageFault("--scale", f"{'x'.join(f'{each:g}' for each in scale)} would make voxels larger", "--scale 2 or --scale 1x2")
    if acquired and any(size != int(size) for size in acquired):
        raise UsageFault("--acquired", "needs whole numbers of samples", "--acquired 256x205")
    if thickness is not None and not (thickness > 0 and thickness != float("inf")):
        raise UsageFault("--slice-thickness", f"{thickness} mm (need a positive size)", "--slice-thickness 5")
