"""A small soak: `scripts/soak.py` as a maintainer runs it, with the tiny network, and that it sees what is lost."""

import importlib
import json
import random
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the soak needs POSIX signals and limits")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "scripts")
        yield importlib.import_module("soak")


def test_nothing_is_lost(script, tmp_path, weights):
    found = script.soak(tmp_path, 10, 1, 6, str(weights[2]))
    assert found.wrong() == [], found.describe()
    assert found.bad and sum(found.faults.values()) > 5
    assert "lost or wrong: 0" in found.describe()


def test_a_signal_that_is_not_obeyed_is_seen(script):
    found = script.Findings(10, 2, waits={"a case": [(0.1, 0.1), (20.0, 0.2), (6.0, 5.5)]})
    assert found.wrong() == ["a signal during a case was obeyed after 6.0 s, 5.5 s of processor time"]
    assert "signals during a case: 3, obeyed after 20.00 s at most (median 6.00 s)" in found.describe()


def test_every_obstacle_and_signal_comes_up(script):
    plans = script.plan_rounds(12, random.Random(0))
    assert len(plans) == 12
    assert {obstacle for obstacle, _ in plans} == {"none", "inputs", "full disk", "file size limit", "two at once", "fresh start"}
    assert {name for _, name in plans} == {"SIGKILL", "SIGTERM", "SIGINT"}


@pytest.fixture
def ended(script, tmp_path):
    """A made-up end of a soak: one good and one bad case; gives what `ended` finds."""
    case = tmp_path / "a"
    case.mkdir()
    (case / script.IMAGE).write_bytes(b"image")
    digest = script._sha256(case / script.IMAGE)
    (case / script.RECORD).write_text(json.dumps({"output": {"sha256": digest}}))
    (case / script.PREVIEW).touch()
    (tmp_path / "summary.csv").write_text("case,status,message\na,done,\nb,failed,empty file\n")
    (tmp_path / "summary.json").write_text('{"interrupted": false, "exit_code": 8, "cases": [{"case": "a"}, {"case": "b"}]}')
    files = set(script.tree(tmp_path))
    return lambda: script.ended(tmp_path, {"a": digest}, {"b": "empty file"}, files)


def test_a_whole_end_has_nothing_wrong(ended):
    assert ended() == []


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("a/target_sr.nii.gz", "other", "a: another image"),
        ("a/target_sr.json", "{", "a: an image without a complete record"),
        ("a/target_sr_preview.png", None, "a: an image without its picture"),
        ("summary.csv", "case,status,message\na,done,\nb,failed,internal fault\n", "b: a bad case whose reason is not"),
        ("summary.csv", "case,status,message\nb,failed,empty file\n", "a: a good case that was not done"),
        ("summary.json", '{"interrupted": true, "exit_code": 130, "cases": []}', "does not tell of a complete run"),
        ("a/.target_sr.nii.gz.0a1b2c3d.part", "", "left behind: a/.target_sr.nii.gz.0a1b2c3d.part"),
    ],
)
def test_what_is_lost_is_seen(ended, tmp_path, name, content, finding):
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    assert any(finding in wrong for wrong in ended())
