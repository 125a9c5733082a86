"""The expected absolute error of a result, voxel by voxel: `UncertaintyHead` on the finished result, and its calibration.

Calibration is by patients that the head was not trained on: its mean is brought to the mean error (`factor`), and the multiple of the
estimate that holds 90 % of the errors is noted for each patient (`interval`), of which the largest counts. With so few patients no coverage
is guaranteed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import Fault
from hftn_sr.inference.pair import PreparedPair
from hftn_sr.networks.uncertainty import UncertaintyHead, head_input
from hftn_sr.networks.weights import MODELS_FOLDER, Model, shipped_models
from hftn_sr.volumes.scratch import Scratch

__all__ = ["FILE", "Calibration", "Calibrated", "Estimate", "Kind", "estimate", "load_head", "save_head"]

FILE = "uncertainty.safetensors"  # beside the weights of the network; that of the shipped ones for weights without one
Kind = Literal["kspace", "slices"]
TISSUE = 0.1  # share of the intensity unit from which a voxel counts in the mean
LEAST, MOST = -12.0, 2.0  # of the log-scale: 6e-6 and 7 times the intensity unit


@dataclass(frozen=True)
class Calibration:
    """How the head errs on results of some weights, by patients that it was not trained on.

    Args:
        model: name of the weights, as "base x2".
        sha256: of the weights' file.
        kind: `kspace` for in-plane resolution lost, `slices` for thick slices.
        tta: number of orientations that were averaged.
        factor: by which the head's b is multiplied to be the mean error.
        interval: multiple of the estimate that holds 90 % of the errors.
        low: smallest mean estimate over the tissue of a case that is usual, as a share of the intensity unit.
        high: the largest one.
        patients: by whom.
    """

    model: str
    sha256: str
    kind: Kind
    tta: int
    factor: float
    interval: float
    low: float
    high: float
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Calibrated:
    """The head and its calibrations.

    Args:
        network: in evaluation mode, on its device.
        path: its file.
        sha256: of that file.
        calibrations: by weights and kind; not empty.
        record: how it was trained.
    """

    network: UncertaintyHead
    path: Path
    sha256: str
    calibrations: tuple[Calibration, ...]
    record: dict[str, Any]

    def of(self, model: Model, kind: Kind) -> tuple[Calibration, bool]:
        """The calibration for results of these weights, and whether it is of these very weights.

        Others are answered for by the ones of the same kind, and if possible of the same scale, that err most.
        """
        of_kind = [each for each in self.calibrations if each.kind == kind] or list(self.calibrations)
        own = [each for each in of_kind if each.sha256 == model.sha256]
        scale = f" x{model.scale}" if model.scale else " any"
        near = [each for each in of_kind if each.model.endswith(scale)] or of_kind
        return max(own or near, key=lambda each: each.factor * each.interval), bool(own)


@dataclass(frozen=True)
class Estimate:
    """The expected absolute error of a result.

    Args:
        volume: (X, Y, Z), in the result's unit.
        record: entry of the side file.
        findings: notes and warnings.
    """

    volume: Scratch
    record: dict[str, Any]
    findings: tuple[str, ...]


def load_head(weights: Path, device: torch.device | str = "cpu") -> Calibrated:
    """The head beside a file of weights, else the shipped one.

    Args:
        weights: of the network whose results are judged.
        device: where the head runs.

    Raises:
        Fault: there is none, or the file is not what it should be.
    """
    path = weights.parent / FILE if (weights.parent / FILE).is_file() else MODELS_FOLDER / FILE
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        network = UncertaintyHead()
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        found = tuple(Calibration(**{**each, "patients": tuple(each["patients"])}) for each in json.loads(header["calibration"]))
        record = json.loads(header["record"])
        if not found or not all(math.isfinite(each.factor * each.interval) for each in found):
            raise ValueError("no calibration")
    except FileNotFoundError:
        raise Fault(path, "there is no uncertainty head", "restore the file from the release, or leave out --uncertainty") from None
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        finding = f"is not a calibrated uncertainty head ({type(error).__name__})"
        raise Fault(path, finding, "restore the file from the release, or calibrate it again") from None
    sha256 = hashlib.sha256(content).hexdigest()
    expected = shipped_models().get(FILE) if path.parent == MODELS_FOLDER else None
    if expected and sha256 != expected:
        raise Fault(path, f"damaged or replaced (sha256 {sha256}, need {expected})", "restore the file from the release")
    return Calibrated(network.eval().requires_grad_(False).to(device), path, sha256, found, record)


def save_head(head: UncertaintyHead, calibrations: Sequence[Calibration], record: dict[str, Any]) -> bytes:
    """Content of a head's file."""
    told = json.dumps([asdict(each) for each in calibrations])
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    return safetensors.torch.save(state, {"network": "uncertainty", "calibration": told, "record": json.dumps(record)})


def estimate(
    head: Calibrated,
    pair: PreparedPair,
    slices: NDArray[np.float32],
    result: NDArray[np.float32],
    models: tuple[Model, Model | None],
    device: torch.device | str,
    folder: Path,
) -> Estimate:
    """Estimate the error of a result.

    Where slices were made thinner, too, the two errors count as independent: squares add up.

    Args:
        head: the head, on `device`.
        pair: the pair that the result was made of.
        slices: (X, Y, z), the result on the target's slices, in the target's unit.
        result: (X, Y, Z), the result; `slices` itself where they stay.
        models: the network's weights, and those that made slices thinner.
        device: of the head.
        folder: for voxels too large for memory.

    Raises:
        Fault: the estimate is not finite.
    """
    volume = Scratch(pair.final.grid.shape, pair.through_plane, folder)
    found: list[tuple[Calibration, bool]] = []
    if pair.acquired.in_plane:
        found.append(head.of(models[0], "kspace"))
        _in_plane(head, pair, slices, found[-1][0].factor, device, volume)
    if pair.thick and models[1]:
        found.append(head.of(models[1], "slices"))
        _across(head, pair, slices, result, found[-1][0].factor, device, volume, folder)
    return _told(head, pair, result, found, volume)


def _in_plane(
    head: Calibrated, pair: PreparedPair, slices: NDArray[np.float32], factor: float, device: torch.device | str, into: Scratch
) -> None:
    """The error on the target's slices; where they are thinner in the result, each stands for all that lie in it."""
    planes, places = slices.transpose(pair.axes), into.volume.transpose(pair.axes)
    of = ((np.arange(len(places)) + 0.5) * len(planes) / len(places)).astype(int)
    for index in range(len(planes)):
        plane = torch.from_numpy(np.ascontiguousarray(planes[index])) / pair.unit
        places[of == index] = _scale(head, pair.slice(index), plane, pair.acquired.plane, device) * (factor * pair.unit)
        into.release()


def _across(
    head: Calibrated,
    pair: PreparedPair,
    slices: NDArray[np.float32],
    result: NDArray[np.float32],
    factor: float,
    device: torch.device | str,
    into: Scratch,
    folder: Path,
) -> None:
    """Add, to squares, the error of thinner slices: the mean over both families of planes that hold the slice axis."""
    assert pair.thick
    through, first, second = pair.final.axes
    mean = Scratch(pair.final.grid.shape, first, folder)
    for fixed in (first, second):
        planes = mean.volume.transpose(pair.final.grid.slice_axes(fixed))
        for index in range(len(planes)):
            planes[index] += _scale(head, *pair.thick.plane(slices, result, fixed, index), device) * (factor * pair.unit / 2)
        mean.release()
    planes, places = (each.volume.transpose(through, first, second) for each in (mean, into))
    for index in range(len(planes)):
        places[index] = np.hypot(places[index], planes[index])
    into.release()


def _scale(head: Calibrated, image: Tensor, plane: Tensor, kept: Acquisition, device: torch.device | str) -> NDArray[np.float32]:
    """(H, W), the head's b for a plane of the result, in its unit."""
    with torch.inference_mode():
        log_scale: Tensor = head.network(head_input(image, plane, kept)[None].to(device))[0, 0]
        return np.asarray(log_scale.clamp(LEAST, MOST).exp().cpu().numpy())


def _told(
    head: Calibrated, pair: PreparedPair, result: NDArray[np.float32], found: Sequence[tuple[Calibration, bool]], volume: Scratch
) -> Estimate:
    """The estimate with its record, and findings about its mean over the tissue."""
    planes, places = result.transpose(pair.final.axes), volume.volume.transpose(pair.final.axes)
    total = count = 0.0
    for index in range(len(planes)):
        tissue = planes[index] > TISSUE * pair.unit
        total += float(places[index][tissue].sum(dtype=np.float64))
        count += float(tissue.sum())
        volume.release()
    mean = total / max(count, 1.0)
    if not math.isfinite(mean):
        raise Fault(
            pair.target.path, "the estimated error is not finite", "leave out --uncertainty, and check the intensities of both images"
        )
    share = mean / pair.unit
    usual = (math.hypot(*(each.low for each, _ in found)), math.hypot(*(each.high for each, _ in found)))
    record = {
        "mean": float(f"{mean:.5g}"),
        "mean_share": float(f"{share:.5g}"),
        "usual_share": [float(f"{each:.3g}") for each in usual],
        "interval_90": max(each.interval for each, _ in found),
        "calibrated_by": [
            {"model": each.model, "kind": each.kind, "these_weights": own, "patients": list(each.patients)} for each, own in found
        ],
        "head": {"file": head.path.name, "sha256": head.sha256},
    }
    return Estimate(volume, record, (*_foreign(found), *_unusual(share, usual)))


def _foreign(found: Sequence[tuple[Calibration, bool]]) -> list[str]:
    names = [each.model for each, own in found if not own]
    text = f"the uncertainty was not calibrated for these weights: taken as for {' and '.join(names)}, whose errors are the largest"
    return [text] if names else []


def _unusual(share: float, usual: tuple[float, float]) -> list[str]:
    if usual[0] <= share <= usual[1]:
        return []
    told = f"{share:.2%} of the intensity unit, on validation patients {usual[0]:.2%} to {usual[1]:.2%}"
    if share > usual[1]:
        return [f"the expected error is unusually large ({told}): a noisy target, another kind of image, or a reference that does not help"]
    return [f"the expected error is unusually small ({told}): an image of another kind, for which it was not calibrated"]
