"""The bill of materials and the table of licences are those of this environment, and valid."""

import importlib
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from hftn_sr._version import __version__
from hftn_sr.networks.weights import shipped_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield {name: importlib.import_module(name) for name in ("write_sbom", "audit")}


@pytest.fixture(scope="module")
def bom():
    return json.loads((ROOT / "bundle" / "sbom.cdx.json").read_text(encoding="utf-8"))


def pinned():
    """Whether what is installed is what constraints.txt names, as after `make venv`."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    try:
        return sys.version_info >= (3, 11) and all(version(name).partition("+")[0] == wanted for name, wanted in lines)
    except PackageNotFoundError:
        return False


def test_both_files_are_those_that_the_script_writes(scripts):
    if not pinned():
        pytest.skip("another environment than that of `make venv`")
    for path, content in scripts["write_sbom"].files().items():
        assert path.read_bytes() == content, f"{path.name} is out of date: python scripts/write_sbom.py"


def test_it_names_the_weights_that_are_shipped_and_this_version(bom):
    """Whatever the environment."""
    weights = {each["name"]: each["hashes"][0]["content"] for each in bom["components"] if each["type"] == "machine-learning-model"}
    assert weights == {f"models/{name}": sha256 for name, sha256 in shipped_models().items()}, "python scripts/write_sbom.py"
    assert bom["metadata"]["component"]["version"] == __version__


def test_it_follows_the_schema_of_cyclonedx(bom):
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None


def test_every_reference_leads_to_a_component(bom):
    known = {each["bom-ref"] for each in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    assert len(known) == len(bom["components"]) + 1
    for each in bom["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= known


def test_it_tells_nothing_of_the_machine_and_no_time(bom):
    text = json.dumps(bom)
    assert "timestamp" not in text and "file://" not in text and str(ROOT) not in text and str(Path.home()) not in text


@pytest.mark.parametrize(
    ("declared", "licence"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "MIT"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License\nVersion 2.0, January 2004"}, "Apache-2.0"),
        ({"License": "BSD 3-Clause License\n\nCopyright"}, "BSD-3-Clause"),
        ({"License": "Copyright (c) 2001 someone with a long text", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD License"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "ISC"),
        ({}, "not declared"),
    ],
)
def test_a_licence_is_what_the_package_declares(scripts, declared, licence):
    from email.message import Message

    metadata = Message()
    for name, value in declared.items():
        metadata[name] = value
    assert scripts["write_sbom"].declared_licence(metadata) == licence


# Advisories


def test_what_the_audit_found_is_told_in_lines(scripts):
    found = {"dependencies": [
        {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not on PyPI"},
        {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}, {"id": "PYSEC-2", "fix_versions": []}]},
    ]}  # fmt: skip
    text, vulnerable = scripts["audit"].told(found)
    assert vulnerable and text.splitlines() == ["c 2: PYSEC-1, fixed in 3", "c 2: PYSEC-2, fixed in none yet"]
    assert scripts["audit"].told({"dependencies": found["dependencies"][:2]}) == ("no known vulnerability in 1 of 2 packages\n", False)


def test_without_the_index_the_audit_is_skipped_with_one_line(scripts, monkeypatch, capsys):
    monkeypatch.setattr(scripts["audit"], "INDEX", "http://127.0.0.1:9/{}/json")
    assert scripts["audit"].main() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("audit skipped: http://127.0.0.1:9/torch/")


@pytest.mark.parametrize(
    ("printed", "told"), [("", "audit skipped: connection reset"), ('{"dependencies": []}', "no known vulnerability in 0")]
)
def test_an_audit_that_breaks_off_never_fails(scripts, monkeypatch, capsys, printed, told):
    class Done:
        stdout, stderr = printed, "Traceback\nconnection reset\n"

    monkeypatch.setattr(scripts["audit"], "out_of_reach", lambda: "")
    monkeypatch.setattr(scripts["audit"].subprocess, "run", lambda *_, **__: Done)
    assert scripts["audit"].main() == 0
    assert capsys.readouterr().out.startswith(told)
