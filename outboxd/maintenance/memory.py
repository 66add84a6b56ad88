"""Memory that is free goes back to the system.

Producers come and go, each with threads of its own, and each thread takes memory from one of several arenas of the C
library. What is freed there stays resident behind the little that is still used: after half an hour of transactions
with refused rows, 33 of 93 MiB were in use.
"""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """Give back whole pages that are free, of all arenas; a C library that cannot, such as musl, keeps them."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(ctypes.c_size_t(0))
