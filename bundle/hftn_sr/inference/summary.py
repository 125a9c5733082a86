"""The summary of a run: a row for each case, kept from the moment at which the case is over.

Each row is appended to a journal, a file of JSON lines that belongs to one run. `summary.json` and `summary.csv` are made of it. They are
written whole so rarely that this takes a small share of the time: after every case that takes seconds, and not n times for n short ones.
What a killed run left in its journal stands in the summary of the next run, or of `hftn-sr report`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from hftn_sr._version import __version__
from hftn_sr.errors import ALL_FAILED, INTERRUPTED, NOTHING, OK, SOME_FAILED, USAGE, Fault, printable
from hftn_sr.inference.case import LEFT_ALONE, Outcome
from hftn_sr.volumes.files import NewFiles, alone, explained, make_folder, write_bytes

__all__ = ["Merged", "SummaryWriter", "check_summary", "exit_code", "merge_summary", "write_summary"]

RECORD, TABLE = "summary.json", "summary.csv"
JOURNAL, JOURNALS = "summary.{}.jsonl", "summary.*.jsonl"
OWN = re.compile(r"\.?(summary\.[0-9a-f]{8}\.jsonl)(\.lock)?")  # journal or lock of a run of all cases
COLUMNS = (
    "case",
    "status",
    "output",
    "scale",
    "reference",
    "similarity",
    "coverage",
    "uncertainty_mean",
    "seconds",
    "warnings",
    "message",
    "notes",
)
FORMULA = ("=", "+", "-", "@", "'")  # how texts begin that a spreadsheet computes; the apostrophe, so that it can be undone
SHARE = 0.02  # of the time that writing the summary whole may take
MISSING = "missing"  # status of a case that no run has finished
UNUSABLE = "unusable"  # state of a case that failed because of the options; its status is that of any failure
PATIENCE = 10.0  # seconds that another run may take to write the summary

Row = Mapping[str, Any]


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Exit code of a command: 0 all well, 2 no case could be run with these options, 3 nothing to do, 8 some cases failed, 9 all failed."""
    return _exit_code(Counter(_state(outcome) for outcome in outcomes))


def _state(outcome: Outcome) -> str:
    return UNUSABLE if outcome.status == "failed" and outcome.usage else outcome.status


def _exit_code(states: Mapping[str, int]) -> int:
    unusable = states.get(UNUSABLE, 0)
    failed = states.get("failed", 0) + unusable
    if failed == unusable == sum(states.values()) > 0:
        return USAGE
    if failed:
        return ALL_FAILED if failed == sum(states.values()) else SOME_FAILED
    return NOTHING if set(states) <= set(LEFT_ALONE) else OK


def check_summary(folder: Path) -> None:
    """Refuse a folder, before the first case, in which the summary would replace a file of another program.

    Raises:
        Fault: another program wrote `summary.json` or `summary.csv` in `folder`.
    """
    table, record = folder / TABLE, folder / RECORD
    try:
        own = not record.is_file() or {"interrupted", "exit_code", "cases"} <= set(json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError):
        own = False
    if not own:
        raise Fault(record, "is not of this program and would be overwritten", "choose another --output, or move it away")
    if table.is_file() and not _begins(table, (b"case,status,output", b"case\r\n")):
        raise Fault(table, "is not of this program and would be overwritten", "choose another --output, or move it away")


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(max(map(len, starts))).startswith(starts)
    except OSError:
        return False


def write_summary(folder: Path, outcomes: Sequence[Outcome], interrupted: bool = False) -> None:
    """Write `summary.json` and `summary.csv` of a run into `folder`, each replaced in one step.

    Raises:
        Fault: one of the two cannot be written; the other one is then.
    """
    _write(folder, [_text(_row(outcome)) for outcome in outcomes], interrupted, exit_code(outcomes))


def _write(folder: Path, rows: Sequence[str], interrupted: bool, code: int) -> None:
    head = json.dumps({"interrupted": interrupted, "exit_code": INTERRUPTED if interrupted else code})[:-1]
    files = folder / RECORD, folder / TABLE
    make_folder(folder)
    with alone(*files, patience=PATIENCE):
        try:
            _write_one(files[0], _record(head, rows))
        finally:
            _write_one(files[1], _table(rows))


def _write_one(path: Path, chunks: Iterable[bytes]) -> None:
    with NewFiles() as files:
        files.write(path, chunks)
        files.into_place([path])


def _record(head: str, rows: Sequence[str]) -> Iterator[bytes]:
    yield f'{head}, "cases": ['.encode()
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}\n{row}".encode()
    yield b"\n]}\n"


def _table(rows: Sequence[str]) -> Iterator[bytes]:
    line = io.StringIO()
    writer = csv.DictWriter(line, COLUMNS if rows else COLUMNS[:1])
    writer.writeheader()
    for row in rows:
        yield line.getvalue().encode()
        line.seek(0)
        line.truncate()
        writer.writerow({key: _cell(value) for key, value in json.loads(row).items()})
    yield line.getvalue().encode()


def _row(outcome: Outcome) -> dict[str, Any]:
    """What the summary says of a case, on one line each and in characters that every file takes."""
    record, there = outcome.record, outcome.status in ("done", "done before")
    similarity = record.get("similarity")
    row = {
        "case": outcome.case,
        "status": outcome.status,
        "output": outcome.output.name if there else "",
        "scale": record.get("scale"),
        "reference": _reference(record.get("reference")),
        "similarity": similarity.get("value") if isinstance(similarity, dict) else None,
        "coverage": record.get("coverage"),
        "uncertainty_mean": record.get("uncertainty_mean"),
        "seconds": round(outcome.seconds, 2),
        "warnings": "; ".join(outcome.warnings),
        "message": outcome.message,
        "notes": "; ".join(outcome.notes),
    }
    return {key: printable(value) if isinstance(value, str) else _number(value) for key, value in row.items()}


def _text(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _reference(told: Any) -> str:
    """Use of the reference: `used`, `left out` or `none`; empty where a record does not tell it."""
    if not isinstance(told, dict) or not {"file", "used"} <= set(told):
        return ""
    return "used" if told["used"] else "left out" if told["file"] else "none"


def _number(value: Any) -> int | float | str:
    """A figure of a record, which another hand may have changed; empty where it is none."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else ""


def _cell(value: int | float | str) -> int | float | str:
    """A value of the table; a text that a spreadsheet would take for a formula begins with an apostrophe there."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


@dataclass
class _Read:
    """What a journal holds.

    Args:
        shard: (I, N); None for a run of all cases.
        started: seconds since the epoch at which its last run began.
        all_cases: number of cases of all shards together.
        names: cases of its last run.
        rows: case to row, the last one of each.
        ended: whether the last run came to its end.
    """

    shard: tuple[int, int] | None = None
    started: float = 0.0
    all_cases: int = 0
    names: list[str] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)
    ended: bool = False


def _read(journal: Path) -> _Read:
    """The content of a journal; a line that was torn by a full disk or a power cut is passed over."""
    found = _Read()
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            said = json.loads(line)
            if "case" in said:
                found.rows[said["case"]] = line.decode()
            elif "end" in said:
                found.ended = True
            else:
                found.shard = tuple(said["shard"]) if said["shard"] else None
                found.started, found.all_cases, found.names, found.ended = said["started"], said["all_cases"], said["cases"], False
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _journals(folder: Path) -> list[tuple[_Read, Path]]:
    """The journals that runs have left in `folder`, and those of runs that go on, the latest last; no files of other programs."""
    found = ((_read(path), path) for path in folder.glob(JOURNALS))
    return sorted((each for each in found if each[0].started), key=lambda each: each[0].started)


def _unbegun(folder: Path) -> list[Path]:
    """Journals of runs that were killed, or found the disk full, before the first line was whole, so without a row. Their locks go now."""
    names = {found[1] for path in folder.glob("*summary.*.jsonl*") if (found := OWN.fullmatch(path.name))}
    return [folder / name for name in sorted(names) if not _read(folder / name).started and _is_left(folder / name)]


def _lock(journal: Path) -> FileLock:
    return FileLock(journal.with_name(f".{journal.name}.lock"), timeout=0)


def _is_left(journal: Path) -> bool:
    """Whether the run that wrote this journal is over. The lock dies with its process."""
    lock = _lock(journal)
    try:
        lock.acquire()
    except Timeout:
        return False
    except OSError:  # read-only: nobody writes here
        return True
    _free(lock)
    return True


def _free(lock: FileLock) -> None:
    with suppress(OSError):  # Windows does not remove a file that is open; it stays, unlocked
        Path(lock.lock_file).unlink()
    lock.release()


class SummaryWriter:
    """Keeps the summary of one run, to be used as a context.

    A shard keeps its journal alone, for `merge_summary`. A run of all cases writes `summary.json` and `summary.csv`, too, and takes its
    journal away at the end.

    Args:
        folder: folder of the results.
        names: names of the cases, in the order of the summary.
        shard: (I, N) of a run of every N-th case, from the I-th on; None for a run of all.
        all_cases: number of the cases of all shards.
    """

    def __init__(self, folder: Path, names: Sequence[str], shard: tuple[int, int] | None = None, all_cases: int | None = None) -> None:
        self.folder, self.names, self.shard = folder, list(names), shard
        self.journal = folder / JOURNAL.format(f"{shard[0]}of{shard[1]}" if shard else secrets.token_hex(4))
        self._head = {"hftn_sr": __version__, "shard": shard, "all_cases": all_cases or len(self.names), "started": time.time()}
        self._rows: dict[str, str] = {}
        self._states: Counter[str] = Counter()
        self._place = {printable(name): position for position, name in enumerate(self.names)}
        self._earlier: dict[str, str] = {}
        self._left: list[Path] = []
        self._lock: FileLock | None = None
        self._stream: IO[bytes] | None = None
        self._waiting: list[str] = [_text({**self._head, "cases": list(self._place)})]  # lines that are not in the journal yet
        self._torn = False
        self._written, self._cost = -math.inf, 0.0

    def begin(self) -> None:
        """Take up what killed runs left, and begin the journal.

        Raises:
            Fault: another run does this shard, or the folder cannot be written.
        """
        if self.shard is None:
            self._take_up()
        lock = _lock(self.journal)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self._lock = lock
            self._torn = self.journal.exists()  # its last line may be
            self._stream = self.journal.open("ab", buffering=0)
        except Timeout:
            finding = "another run does this shard"
            raise Fault(self.journal, finding, "wait for it to end, or give another number to --shard") from None
        except OSError as error:
            raise explained(self.journal, error, 0) from error
        self._append()

    def _take_up(self) -> None:
        found = [(read, path) for read, path in _journals(self.folder) if _is_left(path)]
        self._earlier = _rows_of(self.folder, if_interrupted=True)
        for read, _ in found:
            self._earlier |= {} if read.shard else read.rows
        self._left = [path for read, path in found if read.shard is None or set(read.names) <= set(self._place)]
        self._left += _unbegun(self.folder)

    def add(self, outcome: Outcome) -> None:
        """Keep the row of a case that is over.

        Raises:
            Fault: a file cannot be written; the row is then written with a later one.
        """
        row = _text(_row(outcome))
        self._rows[printable(outcome.case)] = row
        self._states[_state(outcome)] += 1
        self._waiting.append(row)
        try:
            self._append()
        finally:
            if self.shard is None and self._due():
                self.write()

    def _due(self) -> bool:
        return time.monotonic() - self._written >= self._cost / SHARE

    def _append(self) -> None:
        if self._stream is None:
            return
        data = "".join(f"{line}\n" for line in self._waiting).encode()
        try:
            if self._torn:
                data = b"\n" + data
            self._torn = True
            while data:
                data = data[self._stream.write(data) or 0 :]
        except OSError as error:
            raise explained(self.journal, error, len(data)) from error
        self._torn = False
        self._waiting.clear()

    def write(self, interrupted: bool = False) -> None:
        """Write the summary whole.

        Raises:
            Fault: `summary.json` or `summary.csv` cannot be written.
        """
        started = time.monotonic()
        rows = sorted((self._earlier | self._rows).items(), key=lambda each: self._place.get(each[0], -1))
        try:
            _write(self.folder, [row for _, row in rows], interrupted, _exit_code(self._states))
        finally:
            self._written = time.monotonic()
            self._cost = self._written - started

    def end(self, interrupted: bool = False) -> None:
        """Write the summary and take the journal away, or of a shard: say in the journal that it is complete.

        Raises:
            Fault: a file cannot be written; the journal stays then.
        """
        try:
            if self.shard is None:
                self.write(interrupted)
                self._close()
                _remove([*self._left, self.journal])
            elif not interrupted:  # only this run's rows: those of an earlier one may be of cases that are gone
                head = _text({**self._head, "cases": list(self._place)})
                lines = [head, *self._rows.values(), _text({"end": _exit_code(self._states)})]
                self._close()
                write_bytes(self.journal, "".join(f"{line}\n" for line in lines).encode())
        finally:
            self._close()
            if self._lock:
                _free(self._lock)
                self._lock = None

    def _close(self) -> None:
        if self._stream:
            self._stream.close()
            self._stream = None


def _rows_of(folder: Path, if_interrupted: bool = False) -> dict[str, str]:
    """Case to row of the summary that stands in a folder; empty where there is none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
        if if_interrupted and not found["interrupted"]:
            return {}
        return {row["case"]: _text(row) for row in found["cases"] if row["status"] != MISSING}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


@dataclass(frozen=True)
class Merged:
    """What became of the cases of several runs.

    Args:
        cases: number of cases that are known of.
        missing: names of those that no run has finished.
        unnamed: number of further ones, in shards that never began.
        shards: shards that have not begun, or not come to their end, as `2/4`.
    """

    cases: int
    missing: tuple[str, ...] = ()
    unnamed: int = 0
    shards: tuple[str, ...] = ()


def merge_summary(folder: Path, names: Iterable[str] | None = None, log: Callable[[str], None] | None = None) -> Merged | None:
    """Make one summary of the journals in a folder, those of shards and those that killed runs left.

    The last run of a case counts. Journals are taken away when all that they told of stands in the summary and nothing is missing.

    Args:
        folder: folder of the results.
        names: names of all cases; None where only the journals tell.
        log: hears that a run still goes on.

    Returns:
        what is missing; None where there is no journal.

    Raises:
        Fault: the summary is of another program, or cannot be written.
    """
    found = _journals(folder)
    if not found:
        return None
    check_summary(folder)
    running = [path for _, path in found if not _is_left(path)]
    for path in running:
        if log:
            log(f"{path}: this run still goes on, the summary is as far as it got")
    rows = _rows_of(folder)
    for read, _ in found:
        rows |= read.rows
    told = {*rows, *(name for read, _ in found for name in read.names)}
    known = sorted(told) if names is None else [printable(name) for name in names]
    missing = tuple(name for name in known if name not in rows)
    shards, every = _open_shards([read for read, _ in found])
    unnamed = max(0, every - len(known)) if names is None else 0
    texts = [rows.get(name) or _text(_missing_row(name)) for name in known]
    code = _exit_code(Counter(json.loads(text)["status"] for text in texts))
    _write(folder, texts, bool(missing or unnamed), SOME_FAILED if code == NOTHING and missing else code)
    _remove(path for read, path in found if path not in running and (read.shard is None or not (missing or unnamed)))
    return Merged(len(known) + unnamed, missing, unnamed, shards)


def _remove(journals: Iterable[Path]) -> None:
    for path in journals:
        with suppress(OSError):
            path.unlink()


def _missing_row(name: str) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS, ""), "case": name, "status": MISSING, "message": "no run has finished this case"}


def _open_shards(journals: Sequence[_Read]) -> tuple[tuple[str, ...], int]:
    """Shards of the latest division that have not come to their end, and the number of cases of all of them."""
    latest = next((read for read in reversed(journals) if read.shard), None)
    if latest is None or latest.shard is None:
        return (), 0
    count = latest.shard[1]
    ended = {read.shard[0] for read in journals if read.shard and read.shard[1] == count and read.ended}
    return tuple(f"{number}/{count}" for number in range(1, count + 1) if number not in ended), latest.all_cases
