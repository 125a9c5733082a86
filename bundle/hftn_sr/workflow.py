"""What the workflows need besides networks and transforms: the two ends of inference, around `prepare_pair` and `save_result`; memory."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from monai.transforms import Transform
from torch import nn

from hftn_sr.batch import find_cases
from hftn_sr.errors import end_in_one_line
from hftn_sr.inference.case import Case, RunOptions
from hftn_sr.inference.memory import check_memory
from hftn_sr.inference.pair import PairOptions, prepare_pair
from hftn_sr.inference.plan import plan_case
from hftn_sr.inference.result import save_result
from hftn_sr.runtime import ChosenRuntime
from hftn_sr.weights import load_model, load_weights

__all__ = ["PreparePaird", "SaveResultd", "begin_with", "keep_freed_memory", "one_case", "start_record", "workflow_cases"]

OF_WHOLE_VOLUME = 20  # bytes for each voxel of the result: image, output, and one volume to spare
Network = TypeVar("Network", bound=nn.Module)


class PreparePaird(Transform):
    """From the files of a case to the network's `image` (3, H, W, D), through-plane last.

    Args:
        network: that will be applied to it, on its device; whether it and the whole case fit the memory is found before a voxel is read.
        options: see `PairOptions`, as keyword arguments.
    """

    def __init__(self, network: nn.Module | None = None, **options: Any) -> None:
        self.network = network
        self.options = PairOptions(**options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adds `image` and `pair`, what `SaveResultd` needs; a case that cannot be used ends the process with one line."""
        started = time.monotonic()
        case: Case = data["case"]
        with end_in_one_line():
            may_register = self.network is None or self._checked(case, self.network)
            pair = prepare_pair(case.target, case.reference, case.pair_options(self.options), may_register=may_register)
        return {**data, "image": pair.image, "pair": pair, "seconds": {"read_and_place": time.monotonic() - started}}

    def _checked(self, case: Case, network: nn.Module) -> bool:
        """Raises Fault where the memory does not do; whether it would do for a registration, too."""
        plan = plan_case(case, self.options)
        device = next((parameter.device.type for parameter in network.parameters()), "cpu")
        whole = OF_WHOLE_VOLUME * plan.voxels  # the workflow holds a case whole, where the command line streams its slices
        plain, registering = (replace(each, peak=each.peak + whole, more=each.more + whole) for each in plan.demand(network, device))
        check_memory(case.target, registering if self.options.register == "rigid" else plain)
        return registering.fits


class SaveResultd(Transform):
    """Write `pred` (1, 1, H, W, D) with its record and picture, as the command line does.

    Args:
        weights: file of the network's weights, for the record.
        device: where the network ran, for the record.
        data_consistency: put the measured band of k-space back.
        runtime: how the network was computed, for the record.
        orientations: likewise, in how many each slice was.
        options: as for `PreparePaird`.
    """

    def __init__(
        self,
        weights: str,
        device: Any,
        data_consistency: bool = True,
        runtime: ChosenRuntime = "eager",
        orientations: int = 1,
        **options: Any,
    ) -> None:
        self.weights = weights
        pair = PairOptions(**options)
        self.options = RunOptions(
            weights, str(device), data_consistency=data_consistency, pair=pair, runtime=runtime, orientations=orientations
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adds the `record` of the case."""
        model = load_model(self.weights, data["pair"].scale)
        preds = data["pred"][0, 0].cpu().movedim(-1, 0)
        return {**data, "record": save_result(data["case"], self.options, data["pair"], preds, model, data["seconds"])}


def workflow_cases(folder: Path | str, output: Path | str) -> list[dict[str, Case]]:
    """The cases of a folder, see `find_cases`, whose results are not there yet; what cannot be used ends the process with one line each."""
    with end_in_one_line():
        cases, failed = find_cases(Path(folder), Path(output))
    for outcome in failed:
        sys.stderr.write(f"ERROR {outcome.case} {outcome.message}\n")
    for case in cases:
        if case.output.exists():
            sys.stderr.write(f"{case.output}: exists, skipped\n")
    return [{"case": case} for case in cases if not case.output.exists()]


def begin_with(network: Network, start_from: str | None, scale: int) -> Network:
    """The network that a training begins with; what cannot be used ends the process with one line.

    Args:
        network: untrained.
        start_from: a shipped model or a .safetensors file of the same network; None leaves `network` as it is.
        scale: 2 or 4.
    """
    if start_from is None:
        return network
    with end_in_one_line():
        return load_weights(network, load_model(start_from, scale, option="start_from").path)


def start_record(start_from: str | None, scale: int) -> dict[str, Any] | None:
    """What the record of trained weights says of those that the training began with, see `begin_with`: SHA-256 and their own record."""
    if start_from is None:
        return None
    model = load_model(start_from, scale, option="start_from")
    return {"sha256": model.sha256, **model.record}


def one_case(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate a batch of one: `image` gets its batch axis, the rest stays as it is."""
    (case,) = batch
    return {**case, "image": case["image"].unsqueeze(0)}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next tensors, instead of giving it back to the system and asking anew in every step.

    The system hands out new memory page by page, each filled with zeros, which takes a training on a CPU a tenth of its time
    (docs/design-log.md). The process holds on to its peak.

    Returns:
        Whether it was done: it is glibc's, that is Linux's; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 100 * 2**20))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in settings)
