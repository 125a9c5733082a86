"""Whatever happens while a file is written, its path holds the old content or the complete new one."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys

import pytest

from hftn_sr.errors import Fault
from hftn_sr.volumes import files
from hftn_sr.volumes.files import NewFiles, check_writable, sha256_of, write_bytes, write_json

BUNDLE = str(files.Path(files.__file__).parents[2])


@pytest.fixture
def path(tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(b"old")
    return tmp_path / "image.nii.gz"


def only(path):
    """The path is all that stands in its folder."""
    return [found.name for found in path.parent.iterdir()] == [path.name]


def failing(code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    return fail


def python(code, *arguments, **keywords):
    environment = {**os.environ, "PYTHONPATH": BUNDLE}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **keywords,
    )


def test_content_replaces_the_old_one_and_nothing_else_is_left(path):
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert only(path)


def test_missing_parent_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "c.txt", b"x")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        (errno.ENOSPC, "no space left on the disk (needs 0.0 MB). Fix: free space or choose another --output"),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EROFS, "cannot be written (Read-only file system). Fix: choose an --output folder that you may write to"),
        (errno.EIO, "cannot be written (Input/output error). Fix: check the disk"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_of_the_disk_keeps_the_old_file_and_leaves_no_temporary_one(path, monkeypatch, step, code, finding):
    owner = os if step == "fsync" else files.Path
    monkeypatch.setattr(owner, step, failing(code))
    with pytest.raises(Fault) as caught:
        write_bytes(path, b"new")
    assert f"{path}: {finding}" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert only(path)


def test_an_interrupt_while_writing_keeps_the_old_file_and_leaves_no_temporary_one(path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert only(path)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no permission to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_keeps_the_old_file(small_disk):
    path = small_disk / "image.nii.gz"
    write_bytes(path, b"old")
    with pytest.raises(Fault, match=r"no space left on the disk \(needs 0\.2 MB\)"):
        write_bytes(path, bytes(200_000))
    assert path.read_bytes() == b"old"
    assert only(path)


def test_a_limit_on_file_sizes_keeps_the_old_file(path):
    code = "import sys, pathlib; from hftn_sr.volumes.files import write_bytes; write_bytes(pathlib.Path(sys.argv[1]), bytes(200_000))"
    run = python(code, path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    _, errors = run.communicate(timeout=50)
    assert run.returncode == 1
    assert f"Fault: {path}: cannot be written (File too large)" in errors
    assert path.read_bytes() == b"old"
    assert only(path)


def test_a_process_that_is_killed_while_writing_leaves_the_old_file(path):
    code = """
import os, pathlib, sys, time
from hftn_sr.volumes.files import write_bytes
os.fsync = lambda _: (print("written, not in place", flush=True), time.sleep(60))
write_bytes(pathlib.Path(sys.argv[1]), bytes(200_000))
"""
    run = python(code, path)
    assert run.stdout.readline() == "written, not in place\n"
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=50)
    assert run.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_symbolic_link_is_replaced_and_its_target_left_alone(path):
    link = path.with_name("link.nii.gz")
    link.symlink_to(path)
    write_bytes(link, b"new")
    assert not link.is_symlink()
    assert (link.read_bytes(), path.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("write", [lambda path: write_bytes(path, b"x"), check_writable])
def test_a_parent_that_is_a_file_is_named_as_a_fault(path, write):
    with pytest.raises(Fault, match=r"cannot be written .*Fix: choose an --output folder that you may write to"):
        write(path / "inside.nii.gz")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("write", [lambda path: write_bytes(path, b"x"), check_writable])
def test_a_name_that_is_too_long_is_named_as_a_fault(tmp_path, write):
    with pytest.raises(Fault, match=r"the file name is too long\. Fix: choose a shorter --output"):
        write(tmp_path / ("n" * 300 + ".nii.gz"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("letter", ["n", "é", "字"])
def test_a_name_that_passes_the_check_can_be_written_with_the_names_derived_from_it(tmp_path, letter):
    for letters in range(215 // len(letter.encode()), 250):
        path = tmp_path / f"{letter * letters}.nii"
        try:
            check_writable(path)
        except Fault:
            break
        for derived in (path, path.with_name(f"{letter * letters}_preview.png"), path.with_name(f".{path.name}.lock")):
            derived.touch()
        write_bytes(path, b"x")
    assert len(path.name.encode()) > 235


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(Fault, match=r"is a folder, a file name is needed. Fix: give --output a file name ending in \.nii\.gz"):
        check_writable(tmp_path)


def test_a_folder_without_permission_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(files.Path, "touch", lambda *_, **__: failing(errno.EACCES)())
    with pytest.raises(Fault, match=r"cannot be written \(Permission denied\)\. Fix: choose an --output folder"):
        check_writable(tmp_path / "image.nii.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_read_only_folder_is_found_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Fault, match="cannot be written"):
        check_writable(tmp_path / "image.nii.gz")


def test_checking_leaves_nothing_but_the_parent_folder(tmp_path):
    check_writable(tmp_path / "new" / "image.nii.gz")
    assert list((tmp_path / "new").iterdir()) == []


def test_json_keeps_other_alphabets_and_refuses_what_is_not_json(tmp_path):
    write_json(tmp_path / "a.json", {"名": "é", "x": [1, 0.5]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "名": "é",\n  "x": [\n    1,\n    0.5\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_others_put_into_a_folder_meanwhile_outlives_its_replacement(tmp_path):
    for round_ in (1, 2):
        with NewFiles() as files:
            files.write_folder(tmp_path / "s", [(f"slice_{number:04}.dcm", bytes([round_])) for number in range(3 - round_)])
            if round_ == 2:
                (tmp_path / "s" / "notes.txt").write_text("mine", encoding="utf-8")
            files.into_place([tmp_path / "s"])
    assert {each.name: each.read_bytes() for each in (tmp_path / "s").iterdir()} == {"slice_0000.dcm": b"\2", "notes.txt": b"mine"}
    assert [each.name for each in tmp_path.iterdir()] == ["s"]
