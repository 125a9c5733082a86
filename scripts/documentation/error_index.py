"""The page bundle/docs/errors.md: every message that refuses an input, with its exit code and its cure."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from documentation.faults import Entry, faults_of
from hftn_sr import errors
from hftn_sr.errors import Fault

__all__ = ["error_index"]

CODES = {
    "OK": "all well",
    "INTERNAL": "a fault of the program: `internal fault: ...`; run again with `--debug` and report the traceback",
    "USAGE": "an option that cannot be meant; also what the parser itself refuses, as `No such option: --scal Did you mean --scale?`",
    "NOTHING": "nothing to do: no case found, or every output exists",
    "SOME_FAILED": "some cases of many failed, the others are done",
    "ALL_FAILED": "the case, or every case, failed",
    "INTERRUPTED": "interrupted by Ctrl-C or SIGTERM; finished cases stand",
}
GROUPS = (  # heading, when such a message comes, where it is made; the longest beginning of a module's path decides
    ("Options", "Before any file is read. Nothing was written.", ("cli/", "api.py", "errors.py", "export.py", "runtime.py")),
    ("Folders of cases", "While cases are looked for in `--cases`.", ("pairs/cases.py", "batch.py")),
    ("BIDS", "`super-resolve --bids`.", ("pairs/bids.py", "pairs/bids_derivative.py")),
    (
        "NIfTI files",
        "While a target, reference, truth or prediction is read. Such a file would give wrong voxels or a wrong place in space.",
        ("volumes/nifti.py", "volumes/nifti_file.py", "volumes/header_affine.py", "volumes/volume.py", "volumes/reading.py"),
    ),
    ("fastMRI files", "While an .h5 file is read or converted.", ("volumes/fastmri.py", "volumes/conversion.py", "volumes/ismrmrd.py")),
    ("DICOM series", "While a folder of slices is read or converted.", ("volumes/dicom.py", "volumes/dicom_slice.py")),
    (
        "Target and reference",
        "While the two are brought onto one grid: they do not fit each other, or this is not the method's task.",
        ("inference/findings.py", "inference/pair.py", "inference/reference.py", "volumes/", "transforms/", "degradation.py"),
    ),
    ("Weights", "While `--model` is loaded. Weights are refused rather than replaced by random ones.", ("weights.py",)),
    (
        "Running and saving",
        "While a case is computed or written. What stood at the output before still stands.",
        ("inference/", "volumes/files.py", "volumes/scratch.py"),
    ),
    ("Scores", "`evaluate`, and tables of cases.", ("evaluation.py", "statistics.py", "protocols.py", "metrics.py")),
    ("QC page", "`report`; in `super-resolve` these are warnings, its results stand already.", ("qc/",)),
    ("Data for training", "`data open-ms`, `data split`, `data fastmri`, and while a workflow reads its datalist.", ("pairs/",)),
    ("Training", "`monai.bundle run training`.", ("handlers/", "workflow.py", "optimizers.py", "networks/")),
    ("Comparison", "`scripts/compare.py` and the scripts that read its output.", ("comparison/",)),
)
HEAD = """# Errors

Written by `make errors` from the code; a test compares.

Every refusal is one line on stderr, `ERROR <case> <path or option>: <finding>. Fix: <cure>.`; `--debug` shows the traceback instead.
Look for words of yours in the tables below: "…" stands for what differs from case to case. Of many cases one that fails does not stop the
rest. An input is never changed, and nothing unfinished stands where a result belongs.

| exit code | means |
| --- | --- |
"""
LABEL = "MONAI Label app"
LABEL_WHEN = "Answers of [the app](monai-label.md); messages of the tables above come with code 422, or 400 for options."
UNPROCESSABLE = 422  # what the app answers to all others


def error_index(bundle: Path) -> str:
    """The page, in Markdown, for the messages of the package and the MONAI Label app in the folder `bundle`.

    Raises:
        Fault: a module makes messages and belongs to no group.
    """
    package, app = bundle / "hftn_sr", bundle / "label_app"
    entries: dict[str, list[Entry]] = {heading: [] for heading, _, _ in GROUPS}
    for entry in faults_of(package, package):
        entries[_heading(entry.module, package)].append(entry)
    codes = "".join(f"| {getattr(errors, name)} | {meaning} |\n" for name, meaning in CODES.items())
    sections = (_section(heading, when, "exit code", entries[heading]) for heading, when, _ in GROUPS)
    of_app = _section(LABEL, LABEL_WHEN, "HTTP code", faults_of(app, package, _http_codes(app / "main.py")))
    return HEAD + codes + "".join(sections) + of_app


def _http_codes(main: Path) -> dict[str, int]:
    """What the app answers to each class of messages, from the table in its `_status`."""
    tree = ast.parse(main.read_text(encoding="utf-8"))
    status = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_status")
    table = next(node for node in ast.walk(status) if isinstance(node, ast.Dict))
    pairs = zip(table.keys, table.values, strict=True)
    return {"Fault": UNPROCESSABLE} | {ast.unparse(kind): ast.literal_eval(code) for kind, code in pairs if kind}


def _heading(module: str, package: Path) -> str:
    fitting = [(len(start), heading) for heading, _, starts in GROUPS for start in starts if module.startswith(start)]
    if not fitting:
        raise Fault(package / module, "makes messages and belongs to no group of the error index", f"name it in GROUPS of {__file__}")
    return max(fitting)[1]


def _section(heading: str, when: str, code: str, entries: Sequence[Entry]) -> str:
    rows = dict.fromkeys(f"| {_cell(entry.finding)} | {entry.code} | {_cell(entry.fix)} |\n" for entry in entries)
    table = "".join([f"| finding | {code} | cure |\n| --- | --- | --- |\n", *rows]) if rows else ""
    return f"\n## {heading}\n\n{when}\n\n{table}" if table else ""


def _cell(text: str) -> str:
    if text == "…":
        return "… (what the step itself says)"
    return text.replace("|", "\\|").replace("*", "\\*").replace("[", "\\[").replace("<", "&lt;")
