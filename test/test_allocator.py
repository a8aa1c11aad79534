"""Settings of the C library's memory allocator."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BLOCK = 64 << 20
PAGE = 4096
# Fills a block three times, and prints the page faults of the last time.
SCRIPT = f"""
import ctypes, resource
from mlperf.util.allocator import keep_freed_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if KEEP:
    keep_freed_blocks()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t({BLOCK})))
    ctypes.memset(block, 1, {BLOCK})
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_blocks_are_used_again_without_page_faults() -> None:
    faults = {}
    for keep in (False, True):
        command = [sys.executable, "-c", SCRIPT.replace("KEEP", str(keep))]
        faults[keep] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults[True] < BLOCK // PAGE // 100
    assert faults[False] > 10 * (faults[True] + 1)
