"""Options of a run and of a pair, and the one place where they are assembled from what a user asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hftn_sr.errors import UsageFault, check_choice, check_scale
from hftn_sr.kspace import Decomposition
from hftn_sr.networks.precision import ChosenPrecision, choose_precision, choose_tta
from hftn_sr.networks.weights import check_model
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.reading import is_fastmri

__all__ = ["Overwrite", "PairBy", "PairOptions", "Register", "RunOptions", "UnfitReference", "choose_device", "run_options"]

Overwrite = Literal["never", "stale", "always"]
Register = Literal["auto", "none", "rigid"]
UnfitReference = Literal["leave-out", "use"]
PairBy = Literal["auto", "header", "index"]


@dataclass(frozen=True)
class PairOptions:
    """How two files become a pair.

    Args:
        scale: upscaling factor, 2 or 4; None takes the one nearest to the ratio of in-plane voxel sizes.
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

    Raises:
        UsageFault: a value is unknown, or two options exclude each other.
    """

    scale: int | None = None
    through_plane: int | None = None
    reference_transform: Path | None = None
    register: Register = "auto"
    unfit_reference: UnfitReference = "leave-out"
    pair_by: PairBy = "auto"
    decomposition: Decomposition = "band"
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_scale(self.scale)
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
        data_consistency: whether the measured band of k-space replaces that of the network's output; never done where the target was
            interpolated after the scan.
        preview: whether a picture is written beside the result.
        pair: how files become a pair.
        precision: arithmetic of the network, see `networks.precision.choose_precision`.
        tta: number of mirror images and transposes over which each slice is averaged, see `networks.precision.WithTTA`; 1 for none.

    Raises:
        UsageFault: `overwrite` is unknown.
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

    def __post_init__(self) -> None:
        check_choice("--overwrite", self.overwrite, get_args(Overwrite))


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
    **pair: Any,
) -> RunOptions:
    """The options of a run, with all that was left to `auto` or None chosen. The command, the API and the workflow come through here.

    Args:
        model: as for `RunOptions`.
        device: as for `choose_device`.
        precision: `auto`, `float32` or `bfloat16`.
        tta: 1, 2, 4 or 8; None takes 4 for `base` and 1 for other weights.
        overwrite: as for `RunOptions`.
        dry_run: as for `RunOptions`.
        data_consistency: as for `RunOptions`.
        preview: as for `RunOptions`.
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
