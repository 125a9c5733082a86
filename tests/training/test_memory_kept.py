"""Memory of a training, in a process of its own: the setting stays for the life of the process."""

import platform
import subprocess
import sys

import pytest

from hftn_sr.training.start import keep_freed_memory

FAULTS = """
import resource, torch
from hftn_sr.training.start import keep_freed_memory

def faults():
    for _ in range(20):
        torch.ones(500_000), torch.ones(5_000_000), torch.ones(9_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

counts = [faults(), faults()]
assert keep_freed_memory()
counts += [faults(), faults()]
print(counts[1] - counts[0], counts[3] - counts[2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_process_that_keeps_freed_memory_is_not_given_the_same_pages_again_and_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 10


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda *_: ("", ""))
    assert not keep_freed_memory()
