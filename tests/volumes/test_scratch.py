"""Voxels put aside are the same in memory and in a file, and nothing is left of the file."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from hftn_sr.errors import Fault
from hftn_sr.volumes import scratch
from hftn_sr.volumes.scratch import Scratch, blocks, check_space, disk_bytes


def resident():
    """Bytes of files that are mapped into this process and in memory."""
    with Path("/proc/self/status").open() as status:
        return 1024 * int(re.search(r"RssFile:\s+(\d+)", status.read())[1])


@pytest.mark.parametrize("through_plane", [0, 1, 2])
def test_a_large_volume_lies_in_a_file_without_name_of_which_a_slice_is_in_memory_until_released(tmp_path, monkeypatch, through_plane):
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    shape = tuple(int(size) for size in np.insert([1000, 1000], through_plane, 8))
    before = resident()
    put_aside = Scratch(shape, through_plane, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert put_aside.volume.shape == shape
    slices = np.moveaxis(put_aside.volume, through_plane, 0)
    assert not slices.any()
    put_aside.release()
    slices[3] = 5
    assert 3e6 < resident() - before < 9e6
    slices[:] = np.arange(8, dtype=np.float32)[:, None, None]
    assert resident() - before > 25e6
    put_aside.release()
    assert resident() - before < 5e6
    assert [part[0, 0, 0] for part in put_aside.parts()] == [0]
    assert np.take(put_aside.volume, 7, through_plane).mean() == 7


def test_a_part_of_the_file_to_write_is_found_in_runs(tmp_path):
    for through_plane in range(3):
        strides = Scratch((30, 40, 50), through_plane, tmp_path).volume.strides
        assert strides[through_plane] == max(strides)
        inner, outer = (strides[axis] for axis in range(3) if axis != through_plane)
        assert inner < outer


def test_a_small_volume_lies_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "TemporaryFile", None)
    put_aside = Scratch((2, 3, 1), 0, tmp_path)
    put_aside.volume[1] = 5
    put_aside.release()
    assert put_aside.volume[..., 0].tolist() == [[0, 0, 0], [5, 5, 5]]


def test_a_disk_without_room_is_a_fault_before_any_voxel_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Fault, match=r"no space left on the disk \(needs 4\.0 MB\)"):
        Scratch((1000, 1000, 1), 2, tmp_path)


def test_blocks_cover_everything_once_and_hold_at_least_one_index(monkeypatch):
    monkeypatch.setattr(scratch, "BLOCK", 10)
    assert list(blocks(7, 4)) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert list(blocks(2, 100)) == [slice(0, 1), slice(1, 2)]


def test_room_on_the_disk_is_asked_for_where_the_file_will_lie(tmp_path):
    check_space(tmp_path / "new" / "folder" / "a.nii", 1000)
    with pytest.raises(Fault, match=r"a\.nii: not enough space left on its disk \(needs 1000000000000 MB, \d+ MB are free\)"):
        check_space(tmp_path / "new" / "a.nii", 10**18)


def test_a_large_case_needs_room_for_its_result_and_two_volumes_beside_it():
    assert disk_bytes(1000) < 2e6
    assert 3 * 4e9 < disk_bytes(10**9) < 3.01 * 4e9
