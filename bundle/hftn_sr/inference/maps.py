"""The further volumes of a result: its expected error and what it adds to what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftn_sr._version import __version__
from hftn_sr.errors import Fault
from hftn_sr.inference.added import added_detail
from hftn_sr.inference.case import MAPS, map_files
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.pair import PreparedPair
from hftn_sr.inference.uncertainty import estimate, load_head
from hftn_sr.networks.weights import Model
from hftn_sr.volumes.files import NewFiles, sha256_of
from hftn_sr.volumes.nifti import nifti_chunks
from hftn_sr.volumes.scratch import Scratch, existing_folder

__all__ = ["Maps", "maps_of", "maps_stand", "wanted_maps", "write_maps"]


@dataclass
class Maps:
    """What was written beside a result.

    Args:
        paths: of the volumes.
        record: entries of the side file.
        findings: notes and warnings.
    """

    paths: list[Path] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


def write_maps(
    files: NewFiles,
    output: Path,
    options: RunOptions,
    pair: PreparedPair,
    slices: Scratch,
    result: Scratch,
    models: tuple[Model, Model | None],
) -> Maps:
    """Write the volumes that were asked for, one after another.

    Args:
        files: takes them.
        output: the result's path.
        options: of the run.
        pair: the pair that the result was made of.
        slices: the result on the target's slices.
        result: the result; `slices` itself where they stay.
        models: the network's weights, and those that made slices thinner.

    Raises:
        Fault: a volume cannot be made or written.
    """
    written, folder = Maps(), existing_folder(output)
    paths = map_files(output)
    if options.uncertainty:
        head = load_head(models[0].path, options.device)
        found = estimate(head, pair, slices.volume, result.volume, models, options.device, folder)
        told = _written(
            files, paths["uncertainty"], f"hftn-sr {__version__} expected absolute error; research use only", pair, found.volume
        )
        written.record |= {"uncertainty_mean": found.record["mean"], "uncertainty": {**told, **found.record}}
        written.findings = found.findings
    if options.added:
        detail = Scratch(pair.final.grid.shape, pair.through_plane, folder)
        added_detail(result.volume, pair.final, detail.volume)
        text = f"hftn-sr {__version__} detail beyond what was measured; research use only"
        written.record["added"] = _written(files, paths["added"], text, pair, detail)
    written.paths = [paths[kind] for kind in wanted_maps(options)]
    return written


def _written(files: NewFiles, path: Path, text: str, pair: PreparedPair, scratch: Scratch) -> dict[str, Any]:
    chunks = nifti_chunks(pair.target.on(pair.final.grid, scratch.volume), text, path.name.endswith(".gz"))
    return {"file": path.name, "sha256": files.write(path, _releasing(chunks, scratch))}


def _releasing(chunks: Iterable[bytes], scratch: Scratch) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        scratch.release()


def wanted_maps(options: RunOptions) -> tuple[str, ...]:
    """Which of MAPS a run is to write."""
    return tuple(kind for kind in MAPS if getattr(options, kind))


def maps_of(record: dict[str, Any], output: Path) -> dict[str, Path]:
    """The volumes that a record names as its own, by kind."""
    named = {kind: record[kind].get("file") for kind in MAPS if isinstance(record.get(kind), dict)}
    return {kind: path for kind, path in map_files(output).items() if named.get(kind) == path.name}


def maps_stand(record: dict[str, Any], output: Path, options: RunOptions, weights: Path) -> bool:
    """Whether the volumes that a run is to write stand there already, as its record tells of them."""
    own = maps_of(record, output)
    try:
        same = all(sha256_of(own[kind]) == record[kind]["sha256"] for kind in wanted_maps(options))
        return same and (not options.uncertainty or record["uncertainty"]["head"]["sha256"] == load_head(weights).sha256)
    except (OSError, KeyError, TypeError, Fault):
        return False
