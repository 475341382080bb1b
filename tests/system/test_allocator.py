import platform
import subprocess
import sys

import pytest

from loopscale.system.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from loopscale.system.allocator import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here: a machine with glibc runs it")
def test_memory_is_not_fresh_for_ever():
    def faults(allocator):
        done = subprocess.run([sys.executable, "-c", FAULTS, allocator], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 0.75 * faults("default")  # it takes two or three until the heap has room


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()
