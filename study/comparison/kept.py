"""Results of long measurements, kept as they come, so that an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comparison.settings import read_record
from hftn_sr.errors import Fault, UsageFault, differences
from hftn_sr.volumes.files import write_json

__all__ = ["Kept"]


class Kept:
    """Results by case in one JSON file, which is complete after each.

    Args:
        path: of the file.
        wanted: what the results depend on, JSON.
        overwrite: begin anew where the file holds what was measured otherwise, instead of refusing.

    Raises:
        UsageFault: it was; the message names what differs.
        Fault: the file is damaged.
    """

    def __init__(self, path: Path, wanted: Mapping[str, Any], overwrite: bool) -> None:
        self.path, self.wanted = path, dict(wanted)
        record = read_record(path)
        if record and not all(isinstance(record.get(key), dict) for key in ("wanted", "results")):
            raise Fault(path, "damaged (no results of such a measurement)", "remove that file and run again")
        same = record.get("wanted") == self.wanted
        if record and not same and not overwrite:
            finding = f"measured otherwise ({'; '.join(differences(record['wanted'], self.wanted))})"
            raise UsageFault(path, finding, "repeat that, name another --output, or --overwrite to measure anew")
        self.results: dict[str, Any] = record["results"] if same else {}

    def keep(self, case: str, result: Any) -> None:
        """Write the result of a case."""
        self.results[case] = result
        write_json(self.path, {"wanted": self.wanted, "results": self.results})
