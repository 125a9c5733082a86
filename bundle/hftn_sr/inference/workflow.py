"""The inference workflow: its transforms around `prepare_pair` and `save_result`, its handlers and its list of cases."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.transforms import Transform
from torch import nn

from hftn_sr.errors import UsageFault, end_in_one_line
from hftn_sr.inference.batch import find_cases
from hftn_sr.inference.case import Case
from hftn_sr.inference.domain import with_domain
from hftn_sr.inference.memory import check_memory
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.inference.plan import Plan, plan_pair
from hftn_sr.inference.result import save_result
from hftn_sr.networks.weights import load_model

__all__ = ["PreparePaird", "SaveResultd", "check_batch_size", "one_case", "workflow_cases"]

OF_WHOLE_VOLUME = 20  # bytes for each voxel of the result: image, output, and one volume to spare


class PreparePaird(Transform):
    """Turn the files of a case into the network's `image` (3, H, W, D), through-plane last.

    Args:
        options: options of the run.
        network: network as it is applied, on its device. The memory for it and for the whole case is checked before a voxel is read; None
            checks none.
    """

    def __init__(self, options: RunOptions, network: nn.Module | None = None) -> None:
        self.options, self.network = options, network

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add `image`, and `pair` and `seconds` for `SaveResultd`; a case that cannot be used ends the process with one line."""
        started = time.monotonic()
        case: Case = data["case"]
        chosen = case.pair_options(self.options.pair)
        with end_in_one_line():
            plan = plan_pair(case.target, case.reference, chosen, case.scan)
            may_register = self.network is None or self._checked(case, plan, self.network)
            pair = prepare_pair(case.target, case.reference, chosen, may_register=may_register, plan=plan)
        return {**data, "image": pair.image, "pair": pair, "seconds": {"read_and_place": time.monotonic() - started}}

    def _checked(self, case: Case, plan: Plan, network: nn.Module) -> bool:
        """Whether the memory also serves a registration; raises Fault where it does not serve the case at all."""
        whole = OF_WHOLE_VOLUME * plan.voxels  # the workflow holds a case whole, the command one slice at a time
        demands = plan.demand(network, self.options.device)
        plain, registering = (replace(each, peak=each.peak + whole, more=each.more + whole) for each in demands)
        check_memory(case.target, registering if self.options.pair.register == "rigid" else plain)
        return registering.fits


class SaveResultd(Transform):
    """Write `pred` (1, 1, H, W, D) with its record and picture, as the command does.

    Args:
        options: options of the run.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the `record` of the case."""
        model = load_model(self.options.model, data["pair"].acquired.scale)
        preds = data["pred"][0, 0].cpu().movedim(-1, 0)
        with end_in_one_line():
            pair = with_domain(data["pair"], model.path)
            return {**data, "record": save_result(data["case"], self.options, pair, preds, model, data["seconds"]).record}


def workflow_cases(folder: Path | str, output: Path | str) -> list[dict[str, Case]]:
    """Cases of a folder whose results are missing, see `find_cases`; those that cannot be used get one line each on stderr."""
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


def check_batch_size(size: int) -> None:
    """Refuse a batch of several cases, which may differ in size.

    Raises:
        UsageFault: it is not one case.
    """
    if size != 1:
        cure = "--dataloader#batch_size 1; --inferer#sw_batch_size counts the slices of a case that the network takes at a time"
        raise UsageFault("--dataloader#batch_size", f"{size} cases in a batch, which may differ in size", cure)
