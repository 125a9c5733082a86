"""A BIDS dataset as a batch: `super-resolve --bids`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.pairs.bids_pairs import BidsRequest

__all__ = ["bids_cases"]


def bids_cases(dataset: Path, request: BidsRequest, output: Path) -> tuple[list[Case], list[Outcome]]:
    """Cases of a dataset, and a failed outcome for each target without its one reference; nothing is written.

    Args:
        dataset: folder of the BIDS dataset, which is only read.
        request: which pairs are wanted.
        output: folder of the derivative dataset.

    Raises:
        Fault: see `find_pairs` and `check_place`.
    """
    from hftn_sr.errors import Fault
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.pairs.bids_derivative import check_place, check_source, result_path, sidecar, unknown_stripping, with_resolution
    from hftn_sr.pairs.bids_pairs import find_pairs

    check_place(dataset, output)
    found = find_pairs(dataset, request)
    if found.without_target:
        typer.echo(f"sessions with {request.reference} but without {request.target}, left out: {found.without_target}", err=True)
    cases, contents, faults = [], {}, dict(found.faults)
    for pair in found.pairs:
        name = result_path(pair.target)
        try:
            check_source(output / name, pair.target)
            contents[name] = sidecar(pair)
        except Fault as fault:
            faults[pair.name] = fault
            continue
        beside = pair.reference.path if pair.reference else None
        cases.append(Case(pair.name, pair.target.path, beside, output / name, sidecar=partial(with_resolution, contents[name])))
    if note := unknown_stripping(output, contents, request.target):
        typer.echo(note, err=True)
    failed = [Outcome(name, "failed", output / name, str(fault)) for name, fault in faults.items()]
    return cases, failed
