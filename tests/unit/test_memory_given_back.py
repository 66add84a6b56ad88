"""What the C library keeps free goes back to the system."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

MIB = 1 << 20
KEPT_FREE = """
import json
from outboxd.maintenance.memory import give_back_memory

def resident_bytes():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

taken = [bytes(4_000) for _ in range(20_000)]
# What is still used at the end of all keeps the rest from being given back.
used = taken[::100] + taken[-1:]
del taken
before = resident_bytes()
give_back_memory()
print(json.dumps([before, resident_bytes()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library cannot give memory back")
def test_free_memory_behind_what_is_still_used_goes_back_to_the_system() -> None:
    said = subprocess.run([sys.executable, "-c", KEPT_FREE], capture_output=True, check=True, timeout=60)
    before, after = json.loads(said.stdout)
    assert before - after > 40 * MIB
