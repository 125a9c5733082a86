"""The steps of the command line as Python functions on files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from hftn_sr.acquisition import Acquisition, Axis, Full
from hftn_sr.errors import SCALES, Fault, Note, NothingToDo, UsageFault
from hftn_sr.inference.acquired import slice_axis
from hftn_sr.inference.batch import Engine, Outcomes, find_cases, lone_case, run_cases, use_threads
from hftn_sr.inference.case import LEFT_ALONE, Case, Outcome
from hftn_sr.inference.options import OutputFormat, Overwrite, PairBy, Register, RunOptions, Sizes, UnfitReference, as_sizes, run_options
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.workers import Job, check_workers, run_in_processes
from hftn_sr.networks.precision import Precision
from hftn_sr.scoring.evaluation import evaluate_volumes, zero_filled_like
from hftn_sr.scoring.metrics import SCORES
from hftn_sr.volumes.files import check_writable, json_bytes, write_files
from hftn_sr.volumes.nifti import ReadOptions, VolumeHeader, nifti_chunks
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.simulation import acquire, thick_slices
from hftn_sr.volumes.simulation import degrade as degrade_volume
from hftn_sr.volumes.volume import Volume

__all__ = [
    "degrade",
    "evaluate",
    "find_cases",
    "run_options",
    "super_resolve",
    "super_resolve_cases",
    "use_threads",
]

StrPath = str | PathLike[str]


def super_resolve(
    target: StrPath,
    reference: StrPath | None,
    output: StrPath,
    *,
    scale: Sizes | None = None,
    acquired: Sizes | None = None,
    voxel: Sizes | None = None,
    slice_thickness: float | None = None,
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
    output_format: OutputFormat = "nifti",
    uncertainty: bool = False,
    added: bool = False,
    read: ReadOptions | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Super-resolve a low-resolution MR volume with the help of another contrast.

    Args:
        target: low-resolution volume: .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        reference: high-resolution volume of the same head in another contrast, on any grid; None for none.
        output: .nii or .nii.gz (or, for DICOM, folder) to write, with a .json record and a _preview.png beside it.
        scale: upscaling factor, one for both in-plane axes or one for each in the array's order: 2, 1.6, (1, 2), "1x2"; None goes by what
            the scan measured and by the reference's voxels.
        acquired: matrix that was measured of the target's file, as (256, 205), where its header does not say it.
        voxel: voxel sizes of the result in mm, two in-plane or all three, in the array's order.
        slice_thickness: of the target's slices in mm, where its header does not say it.
        model: `base`, `small`, another shipped model, or a .safetensors file.
        device: device of the network; `auto` is CUDA where there is one.
        precision: arithmetic of the network: `float32`, or `bfloat16` for its convolutions; `auto` is bfloat16 where that is known to be
            faster and as good.
        tta: number of mirror images and transposes over which each slice is averaged, 1, 2, 4 or 8; more is better and as many times
            slower. None takes 4 for `base` and `correspondence`, 1 for other weights.
        overwrite: treatment of an output that exists, see `RunOptions`.
        through_plane: the target's through-plane array axis; None takes the one whose voxel size differs.
        reference_transform: ITK transform file that maps a target point to a reference point (LPS, mm); None for none.
        register: `auto` registers a reference that does not lie in place, `rigid` every one, `none` none; see `PairOptions`.
        unfit_reference: `leave-out` leaves out a reference that would make the result worse than using none, as another patient's would;
            `use` uses it.
        pair_by: correspondence of slices, see `PairOptions`.
        data_consistency: whether what was measured replaces that of the network's output in-plane.
        preview: whether the picture is written.
        output_format: `dicom` writes a folder with a derived series, if the target is DICOM.
        uncertainty: whether `<name>_uncertainty.nii.gz` is written, too: the expected absolute error in the image's unit.
        added: whether `<name>_added.nii.gz` is written, too: the detail beyond what was measured.
        read: how ambiguous files are read.
        reporter: listener to the run's progress.

    Returns:
        the outcome; its `record` is the content of the side file.

    Raises:
        Fault: an input cannot be used or the output cannot be written; the text names file, finding and cure. Nothing was changed then.
        NothingToDo: the output exists and may not be redone.
    """
    transform = Path(reference_transform) if reference_transform else None
    options = run_options(
        model,
        device,
        precision,
        tta,
        overwrite=overwrite,
        data_consistency=data_consistency,
        preview=preview,
        output_format=output_format,
        uncertainty=uncertainty,
        added=added,
        scale=scale,
        acquired=acquired,
        voxel=voxel,
        slice_thickness=slice_thickness,
        through_plane=through_plane,
        reference_transform=transform,
        register=register,
        unfit_reference=unfit_reference,
        pair_by=pair_by,
        read=read or ReadOptions(),
    )
    case = lone_case(Path(target), Path(reference) if reference else None, Path(output), transform)
    (outcome,) = super_resolve_cases([case], options, reporter, strict=True)
    if outcome.status in LEFT_ALONE:
        raise NothingToDo(case.output, outcome.message, "choose another output or overwrite")
    return outcome


def super_resolve_cases(
    cases: Sequence[Case],
    options: RunOptions,
    reporter: Reporter | None = None,
    *,
    failed: Sequence[Outcome] = (),
    strict: bool = False,
    workers: int = 1,
    engine: Engine | None = None,
) -> Outcomes:
    """Super-resolve many cases; a bad one does not stop the rest.

    Args:
        cases: cases to run, for example those of `find_cases`.
        options: options of the run, see `run_options`.
        reporter: listener to the run's progress.
        failed: outcomes of cases that failed before they could run, which come first.
        strict: whether an error ends the run; otherwise its case fails alone.
        workers: processes that run cases at a time, each with a part of the threads and of the memory; on CUDA one for each device. A
            script that asks for several must be importable: `if __name__ == "__main__":` before what it runs.
        engine: what runs the cases instead; None runs them in this process or in `workers`.

    Yields:
        the outcome of each case, as soon as it is over; those of several workers in the order in which they end.

    Raises:
        UsageFault: more workers than CUDA devices.
        Exception: with `strict`, whatever a case raises.
    """
    reporter = reporter or Reporter()
    if engine is None and workers > 1:
        check_workers(workers, options.device)
        engine = partial(run_in_processes, job=Job(options, strict=strict), workers=workers, reporter=reporter)
    return run_cases(cases, options, reporter, failed, strict, engine)


def degrade(
    input: StrPath,  # noqa: A002 - as the command line names it
    output: StrPath,
    *,
    scale: Sizes | None = None,
    slice_thickness: float | None = None,
    slice_spacing: float | None = None,
    magnitude: bool = False,
    through_plane: int | None = None,
    overwrite: bool = False,
    read: ReadOptions | None = None,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Simulate a faster scan: less in-plane k-space, thicker slices, or both; amplitude and geometry stay right.

    For a scale of 2 or 4, sizes that it does not divide first lose up to scale - 1 voxels, evenly from both sides; slices are cropped to
    what a whole number of thick ones covers.

    Args:
        input: high-resolution volume: .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        output: .nii or .nii.gz to write.
        scale: loss of in-plane resolution, one for both axes or one for each in the array's order: 2, 1.6, (1, 2), "1x2"; None for none.
        slice_thickness: of thick slices in mm, full width at half maximum; None leaves the slices as they are.
        slice_spacing: from one thick slice to the next in mm; None for their thickness.
        magnitude: whether absolute values are stored, as a scanner does.
        through_plane: array axis across the slices; None takes the file's word or the odd one out of the voxel sizes.
        overwrite: whether an output that exists is replaced.
        read: how an ambiguous file is read.
        log: function called with each finding while reading, a `Note` or a warning.

    Returns:
        path of the output. Beside one of thick slices lies a JSON file with SliceThickness and SpacingBetweenSlices in mm.

    Raises:
        Fault: the input cannot be used, or the output exists or cannot be written.
    """
    source, result = Path(input), Path(output)
    factors = as_sizes("--scale", scale, 2)
    if factors is None and slice_thickness is None:
        raise UsageFault("--scale", "is missing", "--scale 2, or --slice-thickness 5 for thick slices")
    if factors and min(factors) < 1:
        raise UsageFault("--scale", f"{scale} would make voxels smaller", "--scale 2 or --scale 1x2")
    if slice_spacing is not None and slice_thickness is None:
        raise UsageFault("--slice-spacing", "needs a thickness", "--slice-thickness 5")
    for option, size in (("--slice-thickness", slice_thickness), ("--slice-spacing", slice_spacing)):
        if size is not None and not 0 < size < float("inf"):
            raise UsageFault(option, f"{size} mm (need a positive size)", f"{option} 5")
    if not result.name.endswith((".nii", ".nii.gz")):
        raise UsageFault(str(result), "not a NIfTI file name", "give --output a name ending in .nii.gz or .nii")
    if result.exists():
        with contextlib.suppress(OSError):
            if result.samefile(source):
                raise UsageFault(result, "is the input, it would be overwritten", "choose another --output")
        if not overwrite:
            raise NothingToDo(result, "exists already", "--overwrite always, or another --output")
    side_file = result.with_name(f"{result.name.removesuffix('.gz').removesuffix('.nii')}.json")
    if slice_thickness is not None and side_file.exists() and not overwrite:
        raise Fault(side_file, "stands where the slices' thickness would be written", "--overwrite always, or another --output")
    check_writable(result)
    volume = read_volume(source, read or ReadOptions())
    for note in volume.notes:
        if log:
            log(note)
    axis = slice_axis(VolumeHeader(source, volume.grid), through_plane)
    low, told = _degraded(volume, axis, factors, slice_thickness, slice_spacing, magnitude)
    chunks = nifti_chunks(low, f"hftn-sr: simulated, {told}", result.name.endswith(".gz"))
    if slice_thickness is None:
        write_files({result: b"".join(chunks)})
        return result
    spacing = round(float(low.grid.spacing[axis]), 6)
    if log and abs(spacing - (slice_spacing or slice_thickness)) > 1e-3:
        log(Note(f"slices every {spacing:.4g} mm, so that a whole number of them covers whole voxels"))
    known = {"SliceThickness": slice_thickness, "SpacingBetweenSlices": spacing}
    write_files({side_file: json_bytes(known), result: b"".join(chunks)})
    return result


def _degraded(
    volume: Volume,
    through_plane: int,
    factors: tuple[float, ...] | None,
    thickness: float | None,
    spacing: float | None,
    magnitude: bool,
) -> tuple[Volume, str]:
    """The volume with less resolution, and what was done, in words."""
    if factors and thickness is None and factors[0] == factors[1] and factors[0] in SCALES:
        return degrade_volume(volume, int(factors[0]), through_plane, magnitude), f"1/{factors[0]:g} of in-plane k-space"
    kept: list[Axis] = [Full(), Full(), Full()]
    if thickness is not None:
        volume, kept[through_plane] = thick_slices(volume, through_plane, thickness, spacing or thickness)
    if factors:
        in_plane = [axis for axis in range(3) if axis != through_plane]
        plane = Acquisition.from_scale(factors, [volume.data.shape[axis] for axis in in_plane])
        for axis, of in zip(in_plane, plane.axes, strict=True):
            kept[axis] = of
    acquisition = Acquisition(tuple(kept))
    return acquire(volume, acquisition, magnitude), acquisition.describe(volume.data.shape, float(volume.grid.spacing[through_plane]))


def evaluate(
    prediction: StrPath,
    truth: StrPath,
    *,
    target: StrPath | None = None,
    through_plane: int | None = None,
    read: ReadOptions | None = None,
) -> dict[str, Any]:
    """PSNR, SSIM and NMSE of a prediction against the truth, by protocol `corrected`.

    Args:
        prediction: volume, .nii or .nii.gz, on the truth's grid or a crop of it.
        truth: high-resolution volume: .nii, .nii.gz, fastMRI .h5 or folder of a DICOM series.
        target: low-resolution volume that the prediction was made from, to score zero-filling, too; None for none.
        through_plane: array axis along which SSIM takes slices; None for the truth's own.
        read: how ambiguous files are read.

    Returns:
        dictionary with `psnr` (dB), `ssim`, `nmse`, their `conventions`, `voxels_compared`, `warnings`, `notes`, file names and hashes;
        with `target` also `zero_filling`, a dictionary of its three scores.

    Raises:
        Fault: a file cannot be used, or the grids do not coincide.
    """
    options = read or ReadOptions()
    result, whole = read_volume(prediction, options), read_volume(truth, options)
    found = evaluate_volumes(result, whole, through_plane)
    if target is None:
        return found
    low = read_volume(target, options)
    baseline = evaluate_volumes(zero_filled_like(low, result), whole, through_plane)
    told = {"target": {"file": Path(target).name, "sha256": low.sha256}, "zero_filling": {name: baseline[name] for name in SCORES}}
    return {**found, **told}
