"""The daemon with its threads' names told to the kernel, so that /proc can say which of them uses the CPU.

Python tells them from 3.14 on. Named once at its start, a thread runs as it does without.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from outboxd.cli import main

_NAME_BYTES_MAX = 15
_run = threading.Thread.run


def name_thread(name: str) -> None:
    """Give the calling thread this name in /proc."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:_NAME_BYTES_MAX])


def _named_run(thread: threading.Thread) -> None:
    name_thread(thread.name)
    _run(thread)


if __name__ == "__main__":
    name_thread("relay")
    threading.Thread.run = _named_run  # type: ignore[method-assign, assignment]
    main()
