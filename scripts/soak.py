"""Nothing is lost: a folder of cases under signals, full disks and inputs that break, then one quiet run after which all must stand.

python scripts/soak.py --cases 500 --seed 0

Rounds of `super-resolve --cases` on one output folder are disturbed by faults drawn at random. After each, what stands there must be
complete. After a last, quiet run every good case must be what an undisturbed run makes of it, bit for bit, every bad one must have its
reason in the summary, no input may have changed, and no temporary or lock file may be left. For Linux and macOS.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hftn_sr.volumes.nifti import save_nifti
from hftn_sr.volumes.simulation import degrade
from hftn_sr.volumes.volume import Volume

SMALL, CHECKED, HEAD = (40, 44, 3), (72, 80, 3), (192, 224, 64)  # voxels; slices below 32 measured ones are not compared with a reference
SPACING = (1.0, 1.0, 3.0)
BAD = 0.2  # share of the cases that no run can do
MODULES = ("__main__", "hftn_sr.api", "hftn_sr.cli.commands", "hftn_sr.report", "hftn_sr.volumes.registration")
OBSTACLES = ("none", "inputs", "full disk", "file size limit", "two at once", "fresh start")
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
OBEYED = 5.0  # seconds within which a run obeys a signal
IMAGE, RECORD, PREVIEW = "target_sr.nii.gz", "target_sr.json", "target_sr_preview.png"


def main(
    cases: Annotated[int, typer.Option(help="Number of cases.", min=10)] = 500,
    seed: Annotated[int, typer.Option(help="Of the cases and the faults.")] = 0,
    rounds: Annotated[int, typer.Option(help="Disturbed runs; default: one for 8 cases.")] = 0,
    registrations: Annotated[int, typer.Option(help="Interruptions of a head-size rigid registration.")] = 6,
    model: Annotated[str, typer.Option(help="As of super-resolve.")] = "small",
) -> None:
    """Run the soak in a temporary folder and print its figures; exit code 1 where anything was lost."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = soak(Path(folder), cases, seed, rounds or max(cases // 8, 8), model)
        if waits := interrupted_registrations(Path(folder), seed, registrations):
            found.waits["a registration"] = waits
    print(found.describe())  # noqa: T201 - the output of this script
    raise typer.Exit(bool(found.wrong()))


@dataclass
class Findings:
    """What a soak saw.

    Args:
        cases: number of cases, good and bad.
        bad: number of bad ones.
        faults: number of each fault.
        lost: what went wrong, one line each.
        waits: from a signal that can be obeyed to the end of the process, by what it met: seconds, and those of processor time.
        left: cases that the quiet run had to do.
        skipped: faults that this machine does not allow.
        seconds: of the disturbed rounds.
    """

    cases: int
    bad: int
    faults: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    waits: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    left: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def wrong(self) -> list[str]:
        """Everything that must not be. On a busy machine processor time tells whether a signal was obeyed in time."""
        late = [
            f"a signal during {met} was obeyed after {seconds:.1f} s, {busy:.1f} s of processor time"
            for met, waits in self.waits.items()
            for seconds, busy in waits
            if min(seconds, busy) > OBEYED
        ]
        return [*self.lost, *late]

    def describe(self) -> str:
        """The figures in a few lines."""
        waits = [
            f"signals during {met}: {len(waits)}, obeyed after {max(each[0] for each in waits):.2f} s at most (median "
            f"{np.median([each[0] for each in waits]):.2f} s), {max(each[1] for each in waits):.2f} s of processor time at most"
            for met, waits in self.waits.items()
        ]
        lines = [
            f"{self.cases} cases, {self.bad} of them bad; disturbed for {self.seconds:.0f} s; the quiet run did {self.left}",
            f"faults: {', '.join(f'{name} {count}' for name, count in sorted(self.faults.items()))}",
            *waits,
            *(f"skipped: {each}" for each in self.skipped),
            f"lost or wrong: {len(self.wrong())}",
            *self.wrong(),
        ]
        return "\n".join(lines)


# Cases


def phantom(shape: tuple[int, int, int], seed: int, kind: str = "target", moved: float = 0.0) -> Volume:
    """Blobs in a head-like ellipsoid and some noise, all drawn from `seed`; the two kinds are two contrasts of one anatomy."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng([seed, kind == "target"])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * SPACING
    middle = (np.array(shape) - 1) * SPACING / 2
    anatomy = 1.0 / (1.0 + np.exp(8 * (np.linalg.norm((index - middle)[..., :2] / (0.45 * middle[:2] * 2), axis=-1) - 0.9)))
    for _ in range(12):
        centre, width = middle + rng.uniform(-0.5, 0.5, 3) * middle, rng.uniform(1.5, 5.0)
        anatomy += rng.uniform(-0.4, 0.5) * np.exp(-((index - centre) ** 2).sum(-1) / (2 * width**2))
    data = 300 * anatomy if kind == "target" else 250 * anatomy * (2.2 - anatomy)
    affine = np.diag([*SPACING, 1.0])
    affine[0, 3] = moved
    return Volume((data + noise.normal(0, 2, shape)).astype(np.float32), affine)


def put_case(folder: Path, shape: tuple[int, int, int], seed: int, moved: float = 0.0) -> None:
    """Write target and reference of a case; a reference that is moved in mm calls for a registration."""
    folder.mkdir(parents=True)
    save_nifti(folder / "target.nii.gz", degrade(phantom(shape, seed), 2, 2), "soak")
    save_nifti(folder / "reference.nii.gz", phantom(shape, seed, "reference", moved), "soak")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def _with_nan(path: Path) -> None:
    volume = phantom(SMALL, 0)
    volume.data[0, 0, 0] = np.nan
    save_nifti(path, volume, "soak")


# What is done to the target of a bad case, and the reason that the summary must give.
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "truncated|incomplete|copy it again"),
    "flipped bit": (_flip, "damaged|copy it again"),
    "text": (lambda path: path.write_text("patient 7, see letter " * 50), "not a NIfTI"),
    "not finite": (_with_nan, "NaN or infinite"),
    "not fetched": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "not fetched"),
    "no reference": (lambda path: path.with_name("reference.nii.gz").unlink(), "reference"),
}


def make_cases(folder: Path, count: int, rng: random.Random) -> dict[str, str]:
    """Write the cases; gives the reason that each bad one must have."""
    bad = {}
    for number in range(count):
        name = f"case{number:04d}"
        checked = rng.random() < 0.1
        put_case(folder / name, CHECKED if checked else SMALL, rng.randrange(2**31), 4.0 if checked and rng.random() < 0.5 else 0.0)
        if rng.random() < BAD:
            kind = rng.choice(list(KINDS))
            KINDS[kind][0](folder / name / "target.nii.gz")
            bad[name] = KINDS[kind][1]
    return bad


# Runs


def _run(arguments: list[str], log: str, largest: int, listening: Event) -> None:
    """The command, in a process that has loaded it already; no file that it writes may grow beyond `largest` bytes, 0 for any size.

    `listening` is set as soon as a signal ends it as a run: one that comes before meets Python's start.
    """
    stream = os.open(os.devnull if largest else log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)  # the limit would hold for the log, too
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    from hftn_sr.cli.commands import app, run

    def command() -> None:
        listening.set()
        app(arguments, standalone_mode=True)

    run(command)


class Runs:
    """Starts the command again and again on the same cases.

    Args:
        folder: holds `in`, the cases, and the logs.
        output: folder of the results.
        model: as of super-resolve.
    """

    def __init__(self, folder: Path, output: Path, model: str) -> None:
        self.folder, self.log = folder, folder / f"{output.name}.log"
        fixed = ["--model", model, "--device", "cpu", "--threads", "1"]
        self.arguments = ["super-resolve", "--cases", str(folder / "in"), "--output", str(output), *fixed]
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(MODULES))

    def start(self, largest: int = 0) -> BaseProcess:
        """Start a run in a process of its own."""
        listening = self.context.Event()
        process = self.context.Process(target=_run, args=(self.arguments, str(self.log), largest, listening))
        process.start()
        listening.wait(60)
        return process

    def fresh(self) -> subprocess.Popen[bytes]:
        """Start a run that must load the program first."""
        with self.log.open("ab") as stream:
            return subprocess.Popen([sys.executable, "-m", "hftn_sr.cli", *self.arguments], stdout=stream, stderr=stream)


def _end(process: BaseProcess, name: str, found: Findings) -> None:
    """Send a signal unless the process has ended by itself, and look at how it ends."""
    running = process.is_alive()
    if running:
        found.faults[name] += 1
        wait = _signalled(process, name)
        if name != "SIGKILL":
            found.waits.setdefault("a case", []).append(wait)
    process.join()
    codes = {0, 3, 8, 9, *([-signal.SIGKILL] if name == "SIGKILL" else [130])}
    if process.exitcode not in codes:
        found.lost.append(f"a run that got {name} ended with exit code {process.exitcode}")


def _signalled(process: BaseProcess, name: str) -> tuple[float, float]:
    """Seconds until a process ends after a signal, and those of its processor time; of these the last that was seen."""
    pid = process.pid or 0
    sent, first = time.monotonic(), _busy(pid)
    os.kill(pid, SIGNALS[name])
    last = first
    while process.is_alive():
        process.join(0.02)
        last = max(last, _busy(pid))
    seconds = time.monotonic() - sent
    return seconds, last - first if first else seconds


def _busy(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# One round


@contextmanager
def broken_inputs(cases: Path, names: list[str], rng: random.Random, found: Findings) -> Iterator[None]:
    """While a round runs, an input is away and another one is half copied; afterwards both are as they were."""
    whole = {}
    for name in rng.sample(names, min(2, len(names))):
        path = cases / name / rng.choice(["target.nii.gz", "reference.nii.gz"])
        whole[path] = path.read_bytes()
        if rng.random() < 0.5:
            path.unlink()
            found.faults["input vanished"] += 1
        else:
            path.write_bytes(whole[path][: len(whole[path]) // 2])
            found.faults["input half copied"] += 1
    try:
        yield
    finally:
        for path, content in whole.items():
            path.write_bytes(content)


@contextmanager
def full_disk(output: Path, rng: random.Random) -> Iterator[None]:
    """While a round runs, the small file system has only some kilobytes left."""
    ballast = output / "ballast"
    output.mkdir(exist_ok=True)
    free = os.statvfs(output).f_bavail * os.statvfs(output).f_frsize
    ballast.write_bytes(b"\0" * max(free - rng.randrange(60_000), 0))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of that size on `folder`; False where this user may not mount one."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(options, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def plan_rounds(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """An obstacle and a signal for each round; all of both come up as often as each other."""
    obstacles = [each for _ in range(-(-count // len(OBSTACLES))) for each in rng.sample(OBSTACLES, len(OBSTACLES))]
    names = [each for _ in range(-(-count // len(SIGNALS))) for each in rng.sample(list(SIGNALS), len(SIGNALS))]
    return list(zip(obstacles[:count], names, strict=False))


def disturb(
    runs: Runs, disk: Path | None, undone: list[str], plan: tuple[str, str], wait: float, rng: random.Random, found: Findings
) -> None:
    """One round: runs that meet an obstacle, and get a signal after `wait` seconds.

    Args:
        runs: starts them.
        disk: small file system that holds the output; None where there is none.
        undone: good cases that have no result yet.
        plan: obstacle and signal.
        wait: seconds until the signal.
        rng: draws the rest.
        found: gets the figures and what is wrong.
    """
    obstacle, name = plan
    with ExitStack() as held:
        if obstacle == "inputs":
            held.enter_context(broken_inputs(runs.folder / "in", undone, rng, found))
        elif obstacle == "full disk" and disk:
            held.enter_context(full_disk(disk / "out", rng))
        if obstacle not in ("none", "inputs") and (disk or obstacle != "full disk"):
            found.faults[obstacle] += 1
        if obstacle == "fresh start":
            started = runs.fresh()
            time.sleep(rng.uniform(0.1, 2 * wait))
            started.kill()
            started.wait()
            return
        limit = rng.randrange(500, 30_000) if obstacle == "file size limit" else 0
        together = [runs.start(limit) for _ in range(2 if obstacle == "two at once" else 1)]
        together[0].join(wait)
        for process in together:
            _end(process, name, found)


# What must hold


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def standing(output: Path, truth: dict[str, str]) -> list[str]:
    """What is wrong with the results that stand now, complete or not there as each should be."""
    wrong = []
    for image in output.glob(f"*/{IMAGE}"):
        name = image.parent.name
        if _sha256(image) != truth.get(name):
            wrong.append(f"{name}: another image than an undisturbed run makes")
        try:
            record = json.loads((image.parent / RECORD).read_bytes())
            if record["output"]["sha256"] != truth.get(name):
                wrong.append(f"{name}: its record is of another image")
        except (OSError, ValueError, KeyError) as error:
            wrong.append(f"{name}: an image without a complete record ({error!r})")
        if not (image.parent / PREVIEW).is_file():
            wrong.append(f"{name}: an image without its picture")
    try:
        if (output / "summary.json").exists():
            json.loads((output / "summary.json").read_bytes())
    except ValueError:
        wrong.append("summary.json is torn")
    return wrong


def ended(output: Path, truth: dict[str, str], bad: dict[str, str], files: set[str]) -> list[str]:
    """What is wrong after the quiet run."""
    wrong = standing(output, truth)
    with (output / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    for name in truth:
        if not (output / name / IMAGE).is_file() or rows.get(name, {}).get("status") not in ("done", "done before"):
            wrong.append(f"{name}: a good case that was not done ({rows.get(name)})")
    for name, reason in bad.items():
        row = rows.get(name, {})
        if row.get("status") != "failed" or not re.search(reason, row.get("message", "")):
            wrong.append(f"{name}: a bad case whose reason is not {reason!r} ({row})")
    summary = json.loads((output / "summary.json").read_bytes())
    if summary["interrupted"] or summary["exit_code"] != (8 if bad else 0) or {each["case"] for each in summary["cases"]} != set(rows):
        wrong.append(f"summary.json does not tell of a complete run (exit code {summary['exit_code']})")
    there = set(tree(output))
    wrong += [f"left behind: {name}" for name in sorted(there - files)]
    wrong += [f"missing: {name}" for name in sorted(files - there)]
    return wrong


def soak(folder: Path, cases: int, seed: int, rounds: int, model: str) -> Findings:
    """See the module; `folder` is empty and gets all files."""
    rng = random.Random(seed)
    bad = make_cases(folder / "in", cases, rng)
    quiet = Runs(folder, folder / "quiet", model)
    started = time.monotonic()
    process = quiet.start()
    process.join()
    each = (time.monotonic() - started) / cases
    good = {path.parent.name: _sha256(path) for path in (folder / "quiet").glob(f"*/{IMAGE}")}
    found = Findings(cases, len(bad))
    if set(good) | set(bad) != {path.name for path in (folder / "in").iterdir()} or set(good) & set(bad):
        found.lost.append(f"the undisturbed run did {len(good)} cases of {cases - len(bad)} good ones; {quiet.log.read_text()[-2000:]}")
        return found
    inputs, files = tree(folder / "in"), set(tree(folder / "quiet"))
    size = sum(path.stat().st_size for path in (folder / "quiet").rglob("*") if path.is_file())
    with small_disk(folder / "disk", size // 500_000 + 16) as mounted:
        if not mounted:
            found.skipped.append("full disk (only root on Linux may mount a small one)")
        runs = Runs(folder, folder / "disk" / "out", model)
        started = time.monotonic()
        for plan in plan_rounds(rounds, rng):
            wait = rng.expovariate(4 * rounds / (each * cases))
            undone = [name for name in good if not (folder / "disk" / "out" / name / IMAGE).exists()]
            disturb(runs, folder / "disk" if mounted else None, undone, plan, wait, rng, found)
            found.lost += standing(folder / "disk" / "out", good)
        found.seconds = time.monotonic() - started
        found.left = sum(not (folder / "disk" / "out" / name / IMAGE).exists() for name in good)
        last = runs.start()
        last.join()
        found.lost += ended(folder / "disk" / "out", good, bad, files)
        log = runs.log.read_text(encoding="utf-8", errors="replace")
        found.lost += sorted({line for line in log.splitlines() if "internal fault" in line or line.startswith("Traceback")})
    if tree(folder / "in") != inputs:
        found.lost.append("an input has changed")
    return found


def interrupted_registrations(folder: Path, seed: int, count: int) -> list[tuple[float, float]]:
    """What SIGINT or SIGTERM takes at random moments of a rigid registration of head-size images, see `_signalled`."""
    if not count:
        return []
    from hftn_sr.volumes.registration import register_rigid

    target, reference = degrade(phantom(HEAD, seed), 2, 2), phantom(HEAD, seed, "reference", 4.0)
    started = time.monotonic()
    register_rigid(target, reference)
    whole, rng, waits = time.monotonic() - started, random.Random(seed), []
    context = multiprocessing.get_context("forkserver")
    (folder / "head").mkdir()
    save_nifti(folder / "head" / "target.nii.gz", target, "soak")
    save_nifti(folder / "head" / "reference.nii.gz", reference, "soak")
    for _ in range(count):
        process = context.Process(target=_registering, args=(str(folder / "head"),))
        process.start()
        process.join(rng.uniform(0.5, 0.5 + whole))
        if process.is_alive():
            waits.append(_signalled(process, rng.choice(["SIGINT", "SIGTERM"])))
    return waits


def _registering(folder: str) -> None:
    from hftn_sr.cli.commands import app, run

    paths = ["--target", f"{folder}/target.nii.gz", "--reference", f"{folder}/reference.nii.gz", "--output", f"{folder}/sr.nii.gz"]
    run(lambda: app(["super-resolve", *paths, "--register", "rigid", "--threads", "1", "--no-report", "--overwrite", "always"]))


if __name__ == "__main__":
    typer.run(main)
