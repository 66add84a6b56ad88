"""`outboxd run` where an exit handler of the C library crashes, as one may beside a client at work. For tests only.

python -m tests.support.aborting_daemon run -c FILE
"""

from __future__ import annotations

import ctypes
import sys

from outboxd.cli import main

if __name__ == "__main__":
    library = ctypes.CDLL(None)
    library["__cxa_atexit"](ctypes.cast(library.abort, ctypes.c_void_p), None, None)
    sys.exit(main())
