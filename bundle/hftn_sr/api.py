"""The steps of the command line as Python functions on files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from hftn_sr.errors import Fault, NothingToDo, UsageFault, check_choice
from hftn_sr.inference.case import Case, Outcome
from hftn_sr.inference.options import Overwrite, PairBy, PairOptions, Register, RunOptions, UnfitReference
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import run_case
from hftn_sr.networks.precision import Precision, choose_precision, choose_tta
from hftn_sr.networks.weights import load_model
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.volumes.files import check_writable
from hftn_sr.volumes.nifti import ReadOptions, save_nifti
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.simulation import degrade as degrade_volume

__all__ = ["choose_device", "degrade", "evaluate", "super_resolve", "use_threads"]

StrPath = str | PathLike[str]


def super_resolve(
    target: StrPath,
    reference: StrPath | None,
    output: StrPath,
    *,
    scale: Literal[2, 4] | None = None,
    model: str = "base",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Precision = "auto",
    tta: int | None = None,
    overwrite: Overwrite = "never",
    through_plane: int | None = None,
    reference_transform: StrPath | None = None,
    register: Register = "auto",
    unfit_reference: UnfitReference = "leave-out",
    pair_by: PairBy = "auto",
    data_consistency: bool = True,
    preview: bool = True,
    read: ReadOptions | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Give a low-resolution MR volume back at high resolution, with the help of another contrast.

    Args:
        target: low-resolution volume, .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        reference: high-resolution volume of the same head in another contrast; on any grid. None for none: the result then comes from the
            target alone, and scale must be given.
        output: .nii or .nii.gz to write, with a .json record and a _preview.png beside it.
        scale: 2 or 4; None takes the one nearest to the ratio of in-plane voxel sizes.
        model: `base`, `small` or a .safetensors file.
        device: `auto` takes CUDA where there is one.
        precision: `float32` computes in float32, `bfloat16` convolves in bfloat16; `auto` is bf16 where that is faster and as good.
        tta: 2, 4 or 8 averages the network over mirror images and turns of each slice, better and as many times slower; None takes
            4 for `base` and 1 for other weights.
        overwrite: what happens where output exists, see `RunOptions`.
        through_plane: the target's through-plane array axis; None takes the one whose voxel size differs.
        reference_transform: ITK transform file that maps a target point to a reference point (LPS, mm).
        register: `auto` registers the reference to the target where it does not lie in place, `rigid` in any case; see `PairOptions`.
        unfit_reference: what happens to a reference that gains less than none, as that of another patient: `leave-out` or `use`.
        pair_by: how slices of the two belong together, see `PairOptions`.
        data_consistency: put the measured band of k-space back into the result; not done where the target was interpolated after the scan.
        preview: write the picture.
        read: how ambiguous files are read.
        reporter: is told of progress.

    Returns:
        what was done; `record` is the content of the side file.

    Raises:
        Fault: an input cannot be used or the output cannot be written; its text names file, finding and cure. Nothing was changed then.
        NothingToDo: the output exists and may not be redone.
    """
    transform = Path(reference_transform) if reference_transform else None
    if reference is None and transform:
        raise UsageFault("--reference-transform", "needs a reference", "--reference FILE, or leave it out")
    case = Case(Path(target).name, Path(target), Path(reference) if reference else None, Path(output), transform)
    pair = PairOptions(
        scale=scale,
        through_plane=through_plane,
        register=register,
        unfit_reference=unfit_reference,
        pair_by=pair_by,
        read=read or ReadOptions(),
    )
    where = choose_device(device)
    how = choose_precision(precision, where, model)
    turns = choose_tta(tta, model)
    options = RunOptions(model, where, overwrite, data_consistency=data_consistency, preview=preview, pair=pair, precision=how, tta=turns)
    report = reporter or Reporter()
    outcome = run_case(case, options, lambda wanted: load_model(model, wanted, options.device), report.slices, report.advance, report.log)
    if outcome.status == "skipped":
        raise NothingToDo(case.output, outcome.message, "choose another output or overwrite")
    return outcome


def degrade(
    input: StrPath,  # noqa: A002 - as the command line names it
    output: StrPath,
    *,
    scale: Literal[2, 4],
    magnitude: bool = False,
    through_plane: int | None = None,
    overwrite: bool = False,
    read: ReadOptions | None = None,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Simulate the faster scan: keep the central 1/scale of each in-plane k-space axis, amplitude and geometry right.

    Sizes that scale does not divide lose up to scale - 1 voxels first, evenly from both sides.

    Args:
        input: high-resolution volume, .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        output: .nii or .nii.gz to write.
        scale: 2 or 4.
        magnitude: store absolute values, as a scanner does.
        through_plane: the array axis that keeps its size; None takes the one whose voxel size differs.
        overwrite: replace an output that exists.
        read: how an ambiguous file is read.
        log: called with what was found while reading and the user should know.

    Returns:
        output.

    Raises:
        Fault: the input cannot be used, or the output exists or cannot be written.
    """
    source, result = Path(input), Path(output)
    if scale not in (2, 4):
        raise UsageFault("--scale", f"scale {scale} (need 2 or 4)", "--scale 2 or --scale 4")
    if not result.name.endswith((".nii", ".nii.gz")):
        raise Fault(result, "not a NIfTI file name", "give --output a name ending in .nii.gz or .nii")
    if result.exists():
        with contextlib.suppress(OSError):
            if result.samefile(source):
                raise Fault(result, "is the input, it would be overwritten", "choose another --output")
        if not overwrite:
            raise NothingToDo(result, "exists already", "--overwrite always, or another --output")
    check_writable(result)
    volume = read_volume(source, read or ReadOptions())
    for note in volume.notes:
        if log:
            log(note)
    axis = volume.grid.through_plane() if through_plane is None else through_plane
    save_nifti(result, degrade_volume(volume, scale, axis, magnitude), f"hftn-sr: simulated, 1/{scale} of in-plane k-space")
    return result


def evaluate(prediction: StrPath, truth: StrPath, *, through_plane: int | None = None, read: ReadOptions | None = None) -> dict[str, Any]:
    """PSNR, SSIM and NMSE of a prediction against the truth, by protocol `corrected`.

    Args:
        prediction: .nii or .nii.gz on the truth's grid or a crop of it.
        truth: .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        through_plane: the axis along which SSIM takes slices; None for the truth's own.
        read: how ambiguous files are read.

    Returns:
        `psnr` (dB), `ssim`, `nmse`, their `conventions`, `voxels_compared`, `warnings`, file names and hashes.

    Raises:
        Fault: a file cannot be used, or the two grids do not coincide.
    """
    options = read or ReadOptions()
    return evaluate_volumes(read_volume(prediction, options), read_volume(truth, options), through_plane)


def choose_device(device: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        UsageFault: CUDA was asked for and there is none.
    """
    check_choice("--device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageFault("--device", "cuda was asked for, PyTorch sees no CUDA device", "--device cpu, or install a CUDA build of PyTorch")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def use_threads(threads: int | None) -> None:
    """Limit PyTorch and ITK to so many threads; None leaves it to them."""
    if threads:
        torch.set_num_threads(threads)
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # loading ITK only to tell it would take a second
        if "itk" in sys.modules:
            sys.modules["itk"].MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
