"""Fetching and listing of the open MS data; the net is a server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hftn_sr.errors import Fault
from hftn_sr.pairs import open_ms

CONTENT = {"a/LICENSE.txt": b"CC-BY", "a/b/big.nii.gz": bytes(range(256)) * 4096}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
SIZE = sum(map(len, CONTENT.values()))
BIG = "a/b/big.nii.gz"
MIRROR = Path(os.environ.get(open_ms.MIRROR_VARIABLE) or "unset")
needs_data = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"{open_ms.MIRROR_VARIABLE} names no copy of the data")


class Server(ThreadingHTTPServer):
    """Serves `content`; `cut` bytes at most per answer, `status` in place of the file, `ranges` off to ignore Range."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.status, self.ranges = dict(CONTENT), 1 << 30, 200, True
        self.requests: list[tuple[str, str | None]] = []
        self.base = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, asked = self.path[1:], self.headers.get("Range")
        self.server.requests.append((name, asked))
        body = self.server.content.get(name)
        if body is None or self.server.status != 200:
            return self.send_error(404 if body is None else self.server.status)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + self.server.cut])
        return None


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(open_ms, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def fetch(server: Server, output: Path, mirror: Path | None = None, progress=lambda done, total: None) -> open_ms.FetchReport:
    return open_ms._fetch(server.base, FILES, SIZE, output, mirror, progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def ranges(server: Server) -> list[str | None]:
    return [asked for name, asked in server.requests if name == BIG]


def test_all_files_come_over_the_net_while_the_progress_rises_to_the_total(server, tmp_path):
    seen: list[tuple[int, int]] = []
    assert fetch(server, tmp_path / "new/data", progress=lambda *now: seen.append(now)).downloaded == list(FILES)
    assert contents(tmp_path / "new/data") == CONTENT
    assert (seen[0], seen[-1]) == ((0, SIZE), (SIZE, SIZE))
    assert seen == sorted(seen)


def test_right_files_are_kept_and_wrong_ones_are_replaced(server, tmp_path):
    fill(tmp_path, {**CONTENT, "a/LICENSE.txt": b"else"})
    report = fetch(server, tmp_path)
    assert (report.kept, report.downloaded, contents(tmp_path)) == ([BIG], ["a/LICENSE.txt"], CONTENT)
    assert report.notes == [f"{tmp_path / 'a/LICENSE.txt'}: wrong sha256, replaced"]


@pytest.mark.parametrize(("left", "served", "asked"), [(9, True, ["bytes=9-"]), (9, False, ["bytes=9-"]), (SIZE, True, [])])
def test_a_part_left_over_is_resumed_where_it_ends_and_a_whole_one_only_renamed(server, tmp_path, left, served, asked):
    server.ranges = served
    fill(tmp_path, {f"{BIG}.part": CONTENT[BIG][:left]})
    fetch(server, tmp_path)
    assert (ranges(server), contents(tmp_path)) == (asked, CONTENT)


@pytest.mark.parametrize("length", [10, len(CONTENT[BIG]), len(CONTENT[BIG]) + 1])
def test_a_part_of_other_bytes_is_dropped_and_the_file_fetched_anew(server, tmp_path, length):
    fill(tmp_path, {f"{BIG}.part": b"x" * length})
    fetch(server, tmp_path)
    assert (ranges(server), contents(tmp_path)) == ([f"bytes={length}-", None], CONTENT)


def test_a_transfer_cut_off_goes_on_from_there(server, tmp_path):
    server.cut = len(CONTENT[BIG]) // 2
    fetch(server, tmp_path)
    assert (ranges(server), contents(tmp_path)) == ([None, f"bytes={server.cut}-"], CONTENT)


@pytest.mark.parametrize(
    ("state", "finding", "tries", "left"),
    [
        ({"cut": 100}, f"a transfer cut off after 300 of {len(CONTENT[BIG])} bytes", 3, {f"{BIG}.part": CONTENT[BIG][:300]}),
        ({"content": {BIG: b"<html>sign in</html>"}}, "sha256 [0-9a-f]{64}", 3, {}),
        ({"content": {}}, "HTTP 404", 1, {}),
        ({"status": 503}, "HTTP 503", 3, {}),
    ],
)
def test_what_the_net_cannot_give_is_a_fault_and_never_stands_under_the_final_name(server, tmp_path, state, finding, tries, left):
    there = {"a/LICENSE.txt": b"CC-BY"}
    fill(tmp_path, there)
    vars(server).update(state)
    with pytest.raises(Fault, match=rf"big\.nii\.gz: found {finding} at http.*, need .* sha256 {FILES[BIG]}\. Fix: .*--mirror DIR"):
        fetch(server, tmp_path)
    assert (len(ranges(server)), contents(tmp_path)) == (tries, {**there, **left})


def test_without_network_the_fault_names_file_hash_and_cure(server, tmp_path):
    server.server_close()
    with pytest.raises(Fault, match=r"LICENSE.txt: found no connection \(.*refused\) at .* sha256 [0-9a-f]+\. Fix: .*--mirror DIR"):
        fetch(server, tmp_path)


def test_an_interrupted_fetch_leaves_a_part_that_the_next_one_resumes(server, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, progress=interrupt)
    left = contents(tmp_path)
    assert left.keys() == {"a/LICENSE.txt", f"{BIG}.part"}
    fetch(server, tmp_path)
    assert (ranges(server)[1:], contents(tmp_path)) == ([f"bytes={len(left[f'{BIG}.part'])}-"], CONTENT)


def test_a_mirror_is_read_before_the_net(server, tmp_path):
    report = fetch(server, tmp_path / "data", fill(tmp_path / "mirror", CONTENT))
    assert (report.copied, report.downloaded, report.notes, server.requests) == (list(FILES), [], [], [])
    assert contents(tmp_path / "data") == contents(tmp_path / "mirror") == CONTENT


def test_files_missing_or_wrong_in_the_mirror_are_noted_and_come_over_the_net(server, tmp_path):
    report = fetch(server, tmp_path / "data", fill(tmp_path / "mirror", {BIG: b"else"}))
    assert report.downloaded == list(FILES)
    assert [note.removeprefix(f"{tmp_path}/mirror/") for note in report.notes] == [
        "a/LICENSE.txt: missing in the mirror, taken from the net",
        f"{BIG}: wrong sha256 in the mirror, taken from the net",
    ]


def test_a_mirror_that_is_no_folder_is_a_fault(tmp_path, monkeypatch):
    with pytest.raises(Fault, match="mirror is no folder"):
        open_ms.fetch_open_ms(tmp_path, tmp_path / "absent")
    monkeypatch.setenv(open_ms.MIRROR_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(Fault, match=f"unset {open_ms.MIRROR_VARIABLE}"):
        open_ms.fetch_open_ms(tmp_path)


def test_a_small_disk_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(open_ms.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(SIZE - 1))
    with pytest.raises(Fault, match="found 1 MB of free disk, need 1 MB"):
        fetch(server, tmp_path)
    assert server.requests == []
    fill(tmp_path, {f"{BIG}.part": CONTENT[BIG][:1]})  # what is begun needs less
    fetch(server, tmp_path)


@pytest.fixture
def full_disk(monkeypatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(open_ms.os, "fsync", fail)


def test_a_disk_that_fails_while_writing_is_not_blamed_on_the_net(server, tmp_path, full_disk):
    with pytest.raises(Fault, match="No space left on device"):
        fetch(server, tmp_path)
    assert (len(server.requests), list(contents(tmp_path))) == (1, ["a/LICENSE.txt.part"])


def test_an_output_that_is_a_file_is_a_fault(server, tmp_path):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(Fault, match="File exists"):
        fetch(server, tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == b"mine"


@pytest.fixture
def stand_in(tmp_path) -> Path:
    """A folder with an empty file for each of the data's."""
    return fill(tmp_path / "stand_in", dict.fromkeys(open_ms._table()[0], b""))


def test_no_patient_is_in_two_splits(stand_in):
    patients: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for pair in open_ms.open_ms_pairs(stand_in):
        assert pair.target.parent == pair.reference.parent
        patients[pair.split].add("/".join(pair.target.parts[-4:-1]))
    assert sum(map(len, patients.values())) == len(set.union(*patients.values()))
    assert patients == {
        "train": {"longitudinal/raw/patient01", "longitudinal/raw/patient19", "cross_sectional/MNI/patient07"},
        "validation": {"longitudinal/raw/patient03", "cross_sectional/MNI/patient19"},
        "test": {"longitudinal/raw/patient04"},
    }


def test_the_pairs_are_those_of_the_data_with_the_misaligned_one_left_out(stand_in):
    cases = [pair.case for pair in open_ms.open_ms_pairs(stand_in)]
    assert [case.removeprefix("longitudinal").removesuffix("_to_FLAIR") for case in cases if case.startswith("longitudinal")] == [
        *("01_study1_T1", "01_study1_T2", "01_study2_T1", "01_study2_T2"),
        *("03_study1_T2", "03_study2_T1", "03_study2_T2"),
        *("04_study1_T1", "04_study1_T2", "19_study2_T1"),
    ]
    ordered = ["FLAIR_to_T1", "FLAIR_to_T2", "T1_to_FLAIR", "T1_to_T2", "T2_to_FLAIR", "T2_to_T1"]
    assert [case.removeprefix("mni07_") for case in cases if case.startswith("mni07")] == ordered
    assert len(cases) == len(set(cases)) == 10 + 6 + 6


def test_each_path_of_a_pair_shows_its_contrast_and_visit(stand_in):
    for pair in open_ms.open_ms_pairs(stand_in):
        visit = f"{pair.case.split('_')[1]}_" if pair.transform else ""
        assert pair.target.name.startswith(visit + pair.target_contrast)
        assert pair.reference.name.startswith(visit + pair.reference_contrast)
        assert pair.case.endswith(f"_{pair.reference_contrast}_to_{pair.target_contrast}")
        if pair.transform:
            assert pair.transform.name == pair.reference.name.replace(".nii.gz", "_intrastudy_to_FLAIR.txt")


def test_a_missing_image_is_named(stand_in):
    (stand_in / "longitudinal/raw/patient04/study1_T2W.nii.gz").unlink()
    with pytest.raises(Fault, match=r"patient04/study1_T2W\.nii\.gz: found no such file"):
        open_ms.open_ms_pairs(stand_in)


def test_the_datalist_has_relative_paths_and_three_sections(stand_in, tmp_path):
    open_ms.write_datalist(stand_in, tmp_path / "lists/open_ms.json")
    datalist = json.loads((tmp_path / "lists/open_ms.json").read_text())
    assert {section: len(entries) for section, entries in datalist.items()} == {"training": 11, "validation": 9, "testing": 2}
    assert datalist["testing"][1] == {
        "case": "longitudinal04_study1_T2_to_FLAIR",
        "target": "longitudinal/raw/patient04/study1_FLAIR.nii.gz",
        "reference": "longitudinal/raw/patient04/study1_T2W.nii.gz",
        "transform": "longitudinal/raw/patient04/study1_T2W_intrastudy_to_FLAIR.txt",
        "weight": 3.0,
    }
    assert datalist["training"][-1]["transform"] == ""
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["open_ms.json"]


def test_a_datalist_that_cannot_be_finished_leaves_the_old_one(stand_in, tmp_path, full_disk):
    fill(tmp_path / "lists", {"old.json": b"old"})
    with pytest.raises(Fault, match="no space left on the disk"):
        open_ms.write_datalist(stand_in, tmp_path / "lists/old.json")
    assert contents(tmp_path / "lists") == {"old.json": b"old"}


def test_the_table_names_the_licences_and_every_image_of_a_pair(stand_in):
    files, size = open_ms._table()
    assert {"longitudinal/LICENSE.txt", "cross_sectional/LICENSE.txt"} <= files.keys()
    assert (len(files), size) == (41, 71_830_011)


@needs_data
@pytest.mark.parametrize("above", [True, False])
def test_the_real_mirror_serves_all_files_and_pairs_by_its_folder_or_the_one_above(tmp_path, above):
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / open_ms.FOLDER).symlink_to(open_ms._data_folder(MIRROR))
    mirror = tmp_path / "above" if above else open_ms._data_folder(MIRROR)
    report = open_ms.fetch_open_ms(tmp_path / "data", mirror)
    assert (len(report.copied), report.downloaded, report.notes) == (41, [], [])
    assert len(open_ms.fetch_open_ms(tmp_path / "data").kept) == 41
    assert sum(map(len, contents(tmp_path / "data").values())) == open_ms._table()[1]
    open_ms.write_datalist(mirror, tmp_path / "list.json")
    first = json.loads((tmp_path / "list.json").read_text())["testing"][0]
    assert all((mirror / first[key]).is_file() for key in ("target", "reference", "transform"))
