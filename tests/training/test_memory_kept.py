"""Memory that a training frees and asks for again, in a process of its own: the setting stays for as long as the process lives."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from hftn_sr.training.start import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(500_000), torch.ones(5_000_000), torch.ones(9_000_000)
before = faults()
for _ in range(20):
    torch.ones(500_000), torch.ones(5_000_000), torch.ones(9_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_process_that_keeps_freed_memory_is_not_given_the_same_pages_again_and_again():
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], check=True, capture_output=True, text=True).stdout)
        for keep in (False, True)
    )
    assert kept < plain / 10


def test_elsewhere_nothing_is_done(monkeypatch):
    from hftn_sr.training import start

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not start.keep_freed_memory()
