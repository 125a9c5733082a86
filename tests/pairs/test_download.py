"""Fetching of files by hash; the net is a server on the loopback interface."""

from __future__ import annotations

import hashlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Server, contents, fill

from hftn_sr.errors import Fault
from hftn_sr.pairs import download

CONTENT = {"a/LICENSE.txt": b"CC-BY", "a/b/big.nii.gz": bytes(range(256)) * 4096}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
SIZE = sum(map(len, CONTENT.values()))
SOURCE = download.Source("http://127.0.0.1:9/", "some_data", FILES, SIZE)
BIG = "a/b/big.nii.gz"


@pytest.fixture(autouse=True)
def filled_net(server) -> None:
    server.content = dict(CONTENT)


def fetch(server: Server, output: Path, mirror: Path | None = None, progress=None) -> download.FetchReport:
    return download.fetch(replace(SOURCE, base=server.base), output, mirror, progress)


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
        download.fetch(SOURCE, tmp_path, tmp_path / "absent")
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(Fault, match=f"unset {download.MIRROR_VARIABLE}"):
        download.fetch(SOURCE, tmp_path)


def test_a_small_disk_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(SIZE - 1))
    with pytest.raises(Fault, match="found 1 MB of free disk, need 1 MB"):
        fetch(server, tmp_path)
    assert server.requests == []
    fill(tmp_path, {f"{BIG}.part": CONTENT[BIG][:1]})  # what is begun needs less
    fetch(server, tmp_path)


def test_a_disk_that_fails_while_writing_is_not_blamed_on_the_net(server, tmp_path, full_disk):
    with pytest.raises(Fault, match="No space left on device"):
        fetch(server, tmp_path)
    assert (len(server.requests), list(contents(tmp_path))) == (1, ["a/LICENSE.txt.part"])


def test_an_output_that_is_a_file_is_a_fault(server, tmp_path):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(Fault, match="File exists"):
        fetch(server, tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == b"mine"


@pytest.mark.parametrize("inside", ["", SOURCE.folder])
def test_a_mirror_named_by_the_environment_may_hold_other_data_too(server, tmp_path, monkeypatch, inside):
    fill(tmp_path / "mirror" / inside, CONTENT)
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(tmp_path / "mirror"))
    assert fetch(server, tmp_path / "data").copied == list(FILES)
