"""A hundred damaged datalists: each is read or refused in one line, never a traceback of another kind."""

from __future__ import annotations

import copy
import json
import os
import random

import pytest
from loopback import fill

from hftn_sr.errors import Fault
from hftn_sr.pairs.datalist import DATALIST, SECTIONS, load_datalist, workflow_sections_apart

COUNT = int(os.environ.get("HFTN_SR_MUTATIONS", "100"))
FILES = [f"{letter}.nii" for letter in "abcdef"]
GARBAGE = [
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, "", "a.nii", "../a.nii", "/", "deep", "x" * 5000, "a\nb", "\0", "\ud800",
    [], ["a.nii"], [[[[]]]], {}, {"a": 1},
]  # fmt: skip


def sound():
    names = iter(FILES)
    cases = {section: [{"case": section, "target": next(names), "reference": next(names), "weight": 1}] for section in SECTIONS}
    return {**cases, "split": {"seed": 0, "patient": "^[^_]+"}}


def places(value, path=()):
    """Paths to every value within it."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from places(each, (*path, key))


def mutated(draw):
    """Text of a datalist with a few values replaced, dropped, doubled or renamed, or with other characters."""
    content = sound()
    for _ in range(draw.randint(1, 2)):
        *above, last = draw.choice([path for path in places(content) if path])
        parent = content
        for key in above:
            parent = parent[key]
        kind = draw.choice(["replace", "replace", "replace", "drop", "rename", "double"])
        if kind == "replace":
            parent[last] = copy.deepcopy(draw.choice(GARBAGE))
        elif kind == "drop":
            del parent[last]
        elif kind == "rename" and isinstance(parent, dict):
            name = draw.choice([last[:-1], f"{last}s", last.upper(), "read", "grid", ""])
            parent[name] = parent.pop(last)
        elif isinstance(parent, list):
            parent.append(parent[last])
    text = json.dumps(content)
    if draw.random() < 0.2:
        start = draw.randrange(len(text))
        text = draw.choice([text[:start], text[:start] + draw.choice('{}[]",:\0é') + text[start + 1 :], "[" * 50_000 + text])
    return text


def read(folder, section):
    load_datalist(folder, section)
    workflow_sections_apart(folder)


def test_a_mutated_datalist_is_read_or_refused_in_one_line(tmp_path, capsys):
    draw = random.Random(0)
    fill(tmp_path, dict.fromkeys(FILES, b""))
    (tmp_path / "deep").mkdir()
    refused = 0
    for number in range(COUNT):
        (tmp_path / DATALIST).write_text(mutated(draw), encoding="utf-8", errors="surrogatepass")
        for section in SECTIONS:
            try:
                read(tmp_path, section)
            except Fault as fault:
                refused += 1
                text = str(fault)
                assert len(text.splitlines()) == 1 and len(text.replace(str(tmp_path), "")) < 600, f"{number}: {text}"
            except SystemExit:
                refused += 1
        for line in capsys.readouterr().err.splitlines():
            assert line.startswith(("ERROR ", "WARNING ")), f"{number}: {line}"
    assert refused > COUNT / 2


def test_the_datalist_that_is_mutated_is_sound(tmp_path):
    fill(tmp_path, dict.fromkeys(FILES, b""))
    (tmp_path / DATALIST).write_text(json.dumps(sound()))
    for section in SECTIONS:
        read(tmp_path, section)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_nesting_of_any_depth_ends_in_one_line(depth, tmp_path):
    (tmp_path / DATALIST).write_text('{"training": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(Fault, match=r"datalist\.json: (not a datalist \(nested too deeply\)|a case without case)"):
        load_datalist(tmp_path, "training")
