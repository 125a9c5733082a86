"""The page itself: `report.html` with its folder `report_files`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hftn_sr._version import NOTICE, __version__
from hftn_sr.errors import Fault, interrupted, printable
from hftn_sr.inference.case import STANDING, Case, CaseImages
from hftn_sr.inference.findings import LOW_SIMILARITY
from hftn_sr.inference.reporter import Reporter
from hftn_sr.report.case import Images, QcCase, of_run
from hftn_sr.report.entry import ENTRY, HIGH_RESIDUAL, key_of, make_entry, place_of, read_entry
from hftn_sr.volumes.files import alone, make_folder, write_bytes, write_files
from hftn_sr.volumes.scratch import IN_MEMORY

__all__ = ["FILES", "PAGE", "EntryReporter", "write_report"]

PAGE, FILES = "report.html", "report_files"
ASSETS = ("report.css", "report.js", "niivue.umd.js", "NIIVUE_LICENSE.txt")
MARK = b'<meta name="generator" content="hftn-sr'
PATIENCE = 60.0  # seconds that another run may take to write the page
EARLIER = "earlier run"


def write_report(folder: Path, cases: Sequence[QcCase], each: Callable[[QcCase], None] | None = None) -> Path:
    """Write `report.html` into `folder`: these cases, and those of earlier runs whose results still stand there.

    Only new results are drawn. Beside the page, `report_files` holds for each case five pictures and the volumes of the viewer, which the
    page loads when they are looked at.

    Args:
        folder: where results lie, directly or in sub-folders.
        cases: in the order in which the page shows them; their outputs lie in folder.
        each: called with each case when it is done.

    Returns:
        the page.

    Raises:
        Fault: a file of another program stands in the way, the folder cannot be written, or an output lies elsewhere.
    """
    page, files = folder / PAGE, folder / FILES
    _check(page, files, cases)
    shown = []
    for case in cases:
        shown.append(_item(case, folder, files))
        if each:
            each(case)
    make_folder(files)
    with alone(page, *(files / name for name in ASSETS), patience=PATIENCE):
        _refresh_assets(files)
        known = {item["key"] for item in shown}
        earlier = [{**entry, "status": EARLIER, "message": ""} for entry in _standing(folder, files) if entry["key"] not in known]
        write_bytes(page, _render([*shown, *earlier]).encode(errors="backslashreplace"))
    return page


class EntryReporter(Reporter):
    """Makes the entry of each case for the page in `folder` while its images are in memory; `write_report` then finds it made.

    Args:
        folder: folder of the page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def saved(self, case: Case, images: CaseImages) -> None:
        """Make the entry. What fails is made again from the files when the page is written, and reported then."""
        shown, files = of_run(case), self.folder / FILES
        try:
            _check(self.folder / PAGE, files, [shown])
            if images.result.data.nbytes <= IN_MEMORY:
                make_entry(shown, self.folder, files, Images(**vars(images)))
        except Exception as error:
            if interrupted(error):
                raise KeyboardInterrupt from error


def _check(page: Path, files: Path, cases: Sequence[QcCase]) -> None:
    if page.is_dir() or (page.is_file() and MARK not in page.read_bytes()[:2000]):
        raise Fault(page, "stands where the QC page would be written, and is not of this program", "move it, or run with --no-report")
    if files.exists() and not files.is_dir():
        raise Fault(files, "stands where the files of the QC page would be written", "move it, or run with --no-report")
    for case in cases:
        if ".." in Path(place_of(case.output, page.parent)).parts:
            raise Fault(case.output, f"does not lie in {page.parent}, whose QC page it should be on", "give the folder that it lies in")


def _item(case: QcCase, folder: Path, files: Path) -> dict[str, Any]:
    """What the page shows of a case: its entry, or if it has none, what is known without."""
    item: dict[str, Any] = {
        "key": key_of(case.output, folder), "name": printable(case.name), "output": "", "status": case.status,
        "message": printable(case.message), "warnings": [], "notes": [], "summary": None, "facts": [],
        "pictures": None, "viewer": None, "figures": None,
    }  # fmt: skip
    if case.status not in STANDING:
        return item | {"message": _of_failed(case)}
    try:
        return {**make_entry(case, folder, files), "status": case.status, "message": case.message}
    except Fault as fault:
        return item | {"status": "failed", "message": str(fault)}


def _of_failed(case: QcCase) -> str:
    kept = " The result of an earlier run was left as it was." if case.output.exists() else ""
    return printable(f"{case.message}{kept}")


def _standing(folder: Path, files: Path) -> list[dict[str, Any]]:
    """Entries of earlier runs whose results are still there, by name."""
    entries = [read_entry(path.parent) for path in files.glob(f"case_*/{ENTRY}")]
    return sorted((entry for entry in entries if entry and (folder / entry["output"]).exists()), key=lambda entry: str(entry["output"]))


def _refresh_assets(files: Path) -> None:
    """Put what every page needs beside it, unless it is there already."""
    source = package_files("hftn_sr.report") / "assets"
    contents = {files / name: (source / name).read_bytes() for name in ASSETS}
    write_files({path: content for path, content in contents.items() if not path.is_file() or path.read_bytes() != content})


def _render(items: Sequence[dict[str, Any]]) -> str:
    environment = Environment(
        loader=PackageLoader("hftn_sr.report", "assets"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    counts = {state: sum(item["status"] == state for item in items) for state in dict.fromkeys(item["status"] for item in items)}
    template = environment.get_template("report.html.j2")
    limits = {"low": LOW_SIMILARITY, "high": HIGH_RESIDUAL}
    return template.render(items=items, counts=counts, limits=limits, notice=NOTICE, version=__version__, files=FILES)
