"""How cases are run, and how two files become a pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hftn_sr.errors import UsageFault, check_choice
from hftn_sr.kspace import Decomposition
from hftn_sr.networks.precision import ChosenPrecision
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.reading import is_fastmri

__all__ = ["UnfitReference", "Overwrite", "PairBy", "PairOptions", "Register", "RunOptions"]

Overwrite = Literal["never", "stale", "always"]
Register = Literal["auto", "none", "rigid"]
UnfitReference = Literal["leave-out", "use"]
PairBy = Literal["auto", "header", "index"]


@dataclass(frozen=True)
class PairOptions:
    """How two files become a pair.

    Args:
        scale: 2 or 4; None takes the one nearest to the ratio of in-plane voxel sizes.
        through_plane: the target's through-plane array axis 0, 1 or 2; None takes the one whose voxel size differs.
        reference_transform: ITK file that maps a target point to a reference point, before any registration.
        register: `rigid` moves the reference where that makes the pair more similar; `auto` does where it does not lie in place, and keeps
            that only if its edges then lie better; `none` does not.
        unfit_reference: whether a reference that would make the result worse than using none is left out or used all the same; one that
            covers too little of the target or has no signal there is left out or refused.
        pair_by: `header` places the reference by the two headers, `index` puts slice i on slice i, see `paired_by_index`; `auto` is `index`
            for two fastMRI files, whose headers do not say where they lie, unless a transform is given.
        decomposition: how the reference is split, see `kspace.decompose`; must be the one that the network was trained with.
        read: how ambiguous files are read.
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
        """Raises UsageFault."""
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
    """How cases are run.

    Args:
        model: `base`, `small` or a weights file.
        device: a torch device name.
        overwrite: what happens to an output that exists: `never` touch it; redo it if `stale`, that is if inputs, model or options are no
            longer those of its record; `always` redo it.
        dry_run: check and report, write nothing.
        data_consistency: put the measured band of k-space back into the result; not done where the target was interpolated after the scan.
        preview: write a picture beside the result.
        pair: how files become a pair.
        precision: how the network is computed, see `precision.choose_precision`.
        tta: in how many each slice is computed, see `precision.WithTTA`.
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
        """Raises UsageFault."""
        check_choice("--overwrite", self.overwrite, get_args(Overwrite))
