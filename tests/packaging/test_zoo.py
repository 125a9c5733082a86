"""The packed bundle keeps the Model Zoo's rules and passes the unit test that goes there."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundle"
NAME = "mri_multi_contrast_super_resolution"
SCHEMA = ROOT / "tests" / "meta_schema_20240725.json"


@pytest.fixture(scope="module")
def rules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("zoo_rules")


@pytest.fixture(scope="module")
def packing(rules):
    return importlib.import_module("package_bundle")


@pytest.fixture(scope="module")
def zoo(packing, tmp_path_factory):
    """A folder like the zoo's, with the unpacked archive in models/."""
    folder = tmp_path_factory.mktemp("zoo")
    archive = packing.package(ROOT, folder)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder / "models")
    return folder


@pytest.fixture
def copy(tmp_path):
    """The texts of the bundle, to be broken; the weights are empty files."""
    for name in ("configs", "docs"):
        shutil.copytree(BUNDLE / name, tmp_path / name)
    shutil.copy(BUNDLE / "LICENSE", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    return tmp_path


def test_the_packed_bundle_keeps_the_rules_of_the_model_zoo(rules, zoo, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    told = []
    rules.verify(zoo / "models" / NAME, SCHEMA, told.append)
    assert told[-1] == "TorchScript" and len(told) == 8


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_each_rule_can_be_broken(rules, copy):
    rules.check_files(copy)
    rules.check_keys(copy)
    rules.check_readme(copy)
    rules.check_version(copy)
    rules.check_requirements(copy)
    (copy / "LICENSE").unlink()
    with pytest.raises(ValueError, match="LICENSE missing"):
        rules.check_files(copy)
    edit(copy / "configs" / "train.json", '"dataset_dir"', '"data"')
    with pytest.raises(ValueError, match=r"train\.json: no dataset_dir"):
        rules.check_keys(copy)
    edit(copy / "docs" / "README.md", "## Performance", "## Results")
    with pytest.raises(ValueError, match="sections"):
        rules.check_readme(copy)
    edit(copy / "configs" / "metadata.json", '"fire": "', '"fire": "about ')
    with pytest.raises(ValueError, match="'fire==about"):
        rules.check_requirements(copy)
    edit(copy / "configs" / "metadata.json", '"task"', '"optional_packages_version": {}, "tasks"')
    with pytest.raises(ValueError, match="optional_packages_version"):
        rules.check_requirements(copy)
    with pytest.raises(Exception, match="'task' is a required property"):
        rules.check_metadata(copy, SCHEMA)
    edit(copy / "configs" / "metadata.json", '"changelog": {', '"changelog": {}, "log": {')
    with pytest.raises(ValueError, match="no changelog entry"):
        rules.check_version(copy)


def test_the_metadata_name_every_package_that_the_bundle_needs(rules):
    named = {Requirement(line).name: line.split("==")[1] for line in rules.requirements(BUNDLE)}
    extras = [{"extra": name} for name in ("", "train", "export")]
    needed = [each for each in map(Requirement, requires("hftn-sr")) if each.marker is None or any(map(each.marker.evaluate, extras))]
    assert len(needed) > 10
    assert [str(each) for each in needed if each.name not in named] == []
    assert [str(each) for each in needed if named[each.name] not in each.specifier] == []


def test_the_unit_test_for_the_zoo_passes_there(packing, zoo):
    test = shutil.copy(ROOT / "scripts" / "zoo" / f"test_{NAME}.py", zoo)
    environment = {**os.environ, "PYTHONPATH": str(zoo), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, test], cwd=zoo, env=environment, capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{packing.uncommitted(BUNDLE)}"
    assert "Ran 2 tests" in done.stderr


def test_the_metadata_s_figures_are_the_model_card_s():
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*`base`\*\*.*\| (x[24]) \|.*\| \*\*([\d.]+)\*\* \|$", card, flags=re.M)
    assert metadata["eval_metrics"] == {f"psnr_gain_{scale}": float(gain) for scale, gain in rows}


def test_every_file_that_the_model_card_names_is_in_the_bundle():
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", card) if "://" not in link]
    assert len(links) > 5
    assert [link for link in links if not (BUNDLE / "docs" / link).is_file()] == []
    files = re.findall(r"(?<!repository's )`?((?:configs|models|hftn_sr)/[\w/.]+\.(?:json|yaml|pt|py|md))", card)
    assert [name for name in files if not (BUNDLE / name).is_file()] == []
