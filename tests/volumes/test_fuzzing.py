"""Random and damaged files of every format: each is refused, or read as another reader reads it. scripts/fuzz_readers.py tries more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import fuzzing
from fuzzing import KINDS, judge, make

COUNTS = {"nifti": 150, "fastmri": 25, "dicom": 25, "mgh": 40, "text_header": 40}
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_readers.py"


@pytest.mark.filterwarnings("ignore")  # of what the readers that are compared with say of damaged files
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_file_is_refused_or_read_right(tmp_path, kind):
    outcomes = []
    for seed in range(COUNTS[kind]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            outcomes.append(judge(kind, make(kind, seed, folder)))
        except Exception as error:
            pytest.fail(f"{kind} seed {seed}: {type(error).__name__}: {error}")
    assert len(outcomes) / 10 < outcomes.count("read") < len(outcomes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_file(tmp_path, kind):
    def content(name):
        (tmp_path / name).mkdir()
        path = make(kind, 3, tmp_path / name)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [file.read_bytes() for file in files]

    first = content("a")
    assert first == content("b") or kind == "fastmri"  # HDF5 writes the time


def test_the_script_tells_of_what_is_neither(tmp_path, monkeypatch, capfd):
    specification = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    answers = iter([("read", ""), ("refused", ""), ("ZeroDivisionError", "by zero"), ("hung", "no answer within 10 s"), ("read", "")])
    monkeypatch.setattr(script, "_answer", lambda *_: next(answers))
    monkeypatch.setattr(script, "_judge_all", fuzzing.judge)  # never called: the process fails at once
    counts = script.fuzz("nifti", range(5))
    assert dict(counts) == {"read": 2, "refused": 1, "ZeroDivisionError": 1, "hung": 1}
    assert "nifti seed 2: ZeroDivisionError\nby zero\nnifti seed 3: hung\n" in capfd.readouterr().out
