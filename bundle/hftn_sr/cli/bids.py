"""A BIDS dataset as a batch: `super-resolve --bids`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hftn_sr.cli.faults import say
from hftn_sr.cli.groups import GroupedCommand
from hftn_sr.errors import Fault, UsageFault

if TYPE_CHECKING:
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.pairs.bids_pairs import BidsRequest

__all__ = ["BidsCommand", "bids_cases"]

PLACING = "run this pair alone with its transform, by --target and --reference"
LABELS = ("--participant-label", "--session-label")  # options that take several values


class BidsCommand(GroupedCommand):
    """A command with the spellings of BIDS Apps: `--participant_label 01 02` is `--participant-label 01 --participant-label 02`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, spelled as the parser takes them."""
        return super().parse_args(ctx, list(_spelled(args)))


def _spelled(arguments: list[str]) -> Iterator[str]:
    repeated = ""  # the option whose further values may follow
    for before, argument in itertools.pairwise(["", *arguments]):
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            name = name.replace("_", "-")
            repeated = name if name in LABELS and not equals else ""
            yield f"{name}{equals}{value}"
        elif argument.startswith("-"):
            repeated = ""
            yield argument
        else:
            if repeated and not before.startswith("--"):
                yield repeated
            yield argument


def bids_request(
    target: Path | None, reference: Path | None, entities: tuple[str, str], labels: tuple[list[str], list[str]], reference_optional: bool
) -> BidsRequest:
    """The request for pairs, as options give it.

    Args:
        target: suffix of the low-resolution images, such as FLAIR; None where the option is missing.
        reference: suffix of the reference images, such as T2w.
        entities: entities of targets and of references, such as `acq-fast_run-1`; empty for any.
        labels: of participants and of sessions, with or without `sub-` and `ses-`; empty for all.
        reference_optional: whether a target without a reference in its session is a case too.

    Raises:
        UsageFault: an option is missing, or is not of its form.
    """
    from hftn_sr.pairs.bids import read_entities, read_labels
    from hftn_sr.pairs.bids_pairs import BidsRequest

    for option, suffix, example in (("--target", target, "FLAIR"), ("--reference", reference, "T2w")):
        if suffix is None:
            raise UsageFault(option, "is missing, a BIDS dataset needs its suffix", f"{option} {example}, or another suffix")
    of_target, of_reference = map(read_entities, ("--target-entities", "--reference-entities"), entities)
    participants, sessions = map(read_labels, ("sub-", "ses-"), labels)
    return BidsRequest(str(target), str(reference), of_target, of_reference, reference_optional, participants, sessions)


def bids_cases(dataset: Path, request: BidsRequest, output: Path, dry_run: bool = False) -> tuple[list[Case], list[Outcome]]:
    """Cases of a dataset, and a failed outcome for each target without its one reference; nothing is written.

    Args:
        dataset: folder of the BIDS dataset, which is only read.
        request: which pairs are wanted.
        output: folder of the derivative dataset.
        dry_run: whether nothing will be written, for the words of a note.

    Raises:
        Fault: see `find_pairs` and `check_place`.
    """
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.pairs.bids import check_dataset
    from hftn_sr.pairs.bids_derivative import check_place, check_source, result_path, sidecar, unknown_stripping, with_resolution
    from hftn_sr.pairs.bids_pairs import find_pairs

    check_dataset(dataset)
    check_place(dataset, output)
    found = find_pairs(dataset, request)
    if found.without_target:
        say(f"sessions with {request.reference} but without {request.target}, left out: {found.without_target}", err=True)
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
        cases.append(
            Case(
                pair.name,
                pair.target.path,
                beside,
                output / name,
                sidecar=partial(with_resolution, contents[name]),
                placing=PLACING,
                scan=pair.target.metadata(),
            )
        )
    if note := unknown_stripping(output, contents, request.target, dry_run):
        say(note, err=True)
    failed = [Outcome(name, "failed", output / name, str(fault)) for name, fault in faults.items()]
    return cases, failed
