"""The two ends of the inference workflow, around `prepare_pair` and `save_result`."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.transforms import Transform
from torch import nn

from hftn_sr.errors import end_in_one_line
from hftn_sr.inference.batch import find_cases
from hftn_sr.inference.case import Case
from hftn_sr.inference.memory import check_memory
from hftn_sr.inference.options import PairOptions, RunOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.inference.plan import plan_case
from hftn_sr.inference.result import save_result
from hftn_sr.networks.precision import ChosenPrecision
from hftn_sr.networks.weights import load_model

__all__ = ["PreparePaird", "SaveResultd", "one_case", "workflow_cases"]

OF_WHOLE_VOLUME = 20  # bytes for each voxel of the result: image, output, and one volume to spare


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
        precision: how the network was computed, for the record.
        tta: likewise, in how many each slice was.
        options: as for `PreparePaird`.
    """

    def __init__(
        self,
        weights: str,
        device: Any,
        data_consistency: bool = True,
        precision: ChosenPrecision = "float32",
        tta: int = 1,
        **options: Any,
    ) -> None:
        self.weights = weights
        pair = PairOptions(**options)
        self.options = RunOptions(weights, str(device), data_consistency=data_consistency, pair=pair, precision=precision, tta=tta)

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


def one_case(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate a batch of one: `image` gets its batch axis, the rest stays as it is."""
    (case,) = batch
    return {**case, "image": case["image"].unsqueeze(0)}
