"""The archive: complete, the same bytes every time, and refused where the Model Zoo would refuse it."""

import hashlib
import importlib
import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hftn_sr.errors import Fault

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packaging():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("package_bundle")


def git(folder, *arguments):
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "core.autocrlf=false", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A git repository with the smallest bundle that can be packed."""
    root = tmp_path / "repository"
    metadata = {"version": "1.2.3", "changelog": {"1.2.3": "first"}}
    files = {
        "LICENSE": "Apache-2.0", "configs/metadata.json": json.dumps(metadata), "configs/inference.json": "{}", "docs/README.md": "# Card",
        "docs/data_license.txt": "CC-BY", "models/model.pt": "weights", "sbom.cdx.json": "{}", "docs/third_party_licenses.md": "# Licences",
        "hftn_sr/_version.py": '__version__ = "1.2.3"\n',
    }  # fmt: skip
    for name, content in files.items():
        path = root / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-q", root)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "bundle")
    return root


def test_the_same_files_give_the_same_bytes_whatever_their_dates_and_modes(packaging, repository, tmp_path):
    first = packaging.package(repository, tmp_path / "one").read_bytes()
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", repository, clone)
    for path in (clone / "bundle").rglob("*"):
        os.utime(path, (1e9, 1e9))
        if path.is_file():
            path.chmod(0o600)
    assert packaging.package(clone, tmp_path / "two").read_bytes() == first


def test_the_archive_holds_what_git_tracks_under_the_name_of_the_bundle(packaging, repository, tmp_path):
    cache = repository / "bundle" / "hftn_sr" / "__pycache__" / "x.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"cache")
    (repository / "bundle" / "notes.txt").write_text("not added")
    path = packaging.package(repository, tmp_path)
    assert path.name == "mri_multi_contrast_super_resolution_v1.2.3.zip"
    with zipfile.ZipFile(path) as zipped:
        names = zipped.namelist()
        assert names == sorted(names)
        assert {name.split("/")[0] for name in names} == {"mri_multi_contrast_super_resolution"}
        assert {entry.external_attr >> 16 for entry in zipped.infolist()} == {stat.S_IFREG | 0o644}
        assert zipped.read("mri_multi_contrast_super_resolution/models/model.pt") == b"weights"
    assert not any("x.pyc" in name or "notes" in name for name in names)


def too_large(bundle):
    with (bundle / "models" / "model.pt").open("wb") as stream:
        stream.truncate(25_000_001)


def link(bundle):
    (bundle / "configs" / "link.json").symlink_to("metadata.json")
    git(bundle, "add", ".")


def without_licence(bundle):
    git(bundle, "rm", "-q", "LICENSE")


def without_materials(bundle):
    git(bundle, "rm", "-q", "sbom.cdx.json")


def lost_file(bundle):
    (bundle / "docs" / "README.md").unlink()


def with_metadata(**changed):
    def change(bundle):
        path = bundle / "configs" / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (too_large, r"model\.pt: 25000001 bytes, the Model Zoo takes 25000000"),
        (link, r"link\.json: is a symbolic link"),
        (without_licence, r"LICENSE: missing or not tracked by git"),
        (without_materials, r"sbom\.cdx\.json: missing or not tracked by git"),
        (lost_file, r"README\.md: git tracks it, but it is not there.*git checkout"),
        (with_metadata(changelog={}), "the changelog says nothing of version 1.2.3"),
        (with_metadata(version="1.2"), "version '1.2' is not of the form"),
        (with_metadata(version="1.2.4", changelog={"1.2.4": "next"}), "version 1.2.4 is not the __version__"),
    ],
    ids=["too large", "link", "no licence", "no bill of materials", "lost file", "no changelog", "no version", "another version"],
)
def test_a_bundle_that_the_zoo_would_refuse_is_not_packed(packaging, repository, tmp_path, break_it, message):
    break_it(repository / "bundle")
    with pytest.raises(Fault, match=message):
        packaging.package(repository, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_folder_without_git_is_refused_with_the_cure(packaging, repository, tmp_path):
    shutil.rmtree(repository / ".git")
    with pytest.raises(Fault, match=r"git cannot list its files.*package from a git clone"):
        packaging.package(repository, tmp_path / "dist")


def test_the_command_prints_the_hash_and_warns_of_what_is_not_committed(packaging, repository, tmp_path, monkeypatch):
    monkeypatch.setattr(packaging, "ROOT", repository)
    (repository / "bundle" / "LICENSE").write_text("changed")
    (repository / "bundle" / "new.py").write_text("")
    app = typer.Typer()
    app.command()(packaging.main)
    done = CliRunner().invoke(app, ["--output", str(tmp_path / "dist")])
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "dist").iterdir()
    assert done.stdout.startswith(hashlib.sha256(path.read_bytes()).hexdigest())
    assert done.stderr.splitlines() == ["WARNING LICENSE: differs from the last commit", "WARNING new.py: not tracked by git, left out"]
