"""Threads that die of a bug: nobody waits for them, so somebody has to say so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deaths_told(tell: Callable[[str, BaseException], None]) -> Iterator[None]:
    """Within it, `tell(thread, error)` is called for each thread that an exception ends, on that very thread."""

    def died(how: threading.ExceptHookArgs) -> None:
        if how.exc_value is not None and how.thread is not None:
            tell(how.thread.name, how.exc_value)

    former, threading.excepthook = threading.excepthook, died
    try:
        yield
    finally:
        threading.excepthook = former
