"""Read many random and damaged image files, and report what is neither refused nor read as another reader reads it.

`python scripts/fuzz_readers.py --count 4000 --seed 0 nifti`. Kinds and files are those of `tests/fuzzing.py`. A file is read in a process
of its own kind: one that hangs or ends the process is reported with its seed, and the rest goes on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bundle"), str(ROOT / "tests")]
LONGEST = 10.0  # seconds that a file may take
FIRST = 60.0  # the first one also loads the readers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives 1 where a file was neither refused nor read right."""
    from fuzzing import KINDS  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first file")
    parser.add_argument("--count", type=int, default=200, help="files of each kind")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    found = 0
    for kind in chosen.kinds or KINDS:
        counts = fuzz(kind, range(chosen.seed, chosen.seed + chosen.count))
        _tell(f"{kind}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
        found += counts.total() - counts["read"] - counts["refused"]
    return 1 if found else 0


def fuzz(kind: str, seeds: range) -> Counter[str]:
    """Judge the files of these seeds; what is found is printed."""
    counts: Counter[str] = Counter()
    left = seeds
    while left:
        here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_judge_all, args=(kind, left, there), daemon=True)
        process.start()
        there.close()
        done = 0
        for seed in left:
            what, text = _answer(here, LONGEST if done else FIRST)
            done += 1
            counts[what] += 1
            if text:
                _tell(f"{kind} seed {seed}: {what}\n{text}")
            if what in ("hung", "died"):
                break
        process.kill()
        process.join()
        left = left[done:]
    return counts


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _answer(connection: Connection, patience: float) -> tuple[str, str]:
    try:
        if not connection.poll(patience):
            return "hung", f"no answer within {patience:.0f} s"
        what, text = connection.recv()
    except EOFError:
        return "died", "the process ended"
    return str(what), str(text)


def _judge_all(kind: str, seeds: range, answers: Connection) -> None:
    from fuzzing import judge, make

    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                answers.send((judge(kind, make(kind, seed, Path(folder))), ""))
            except AssertionError as error:
                answers.send(("read otherwise", str(error).strip()[:600]))
            except Exception as error:
                answers.send((type(error).__name__, "".join(traceback.format_exception(error)[-6:])))


if __name__ == "__main__":
    raise SystemExit(main())
