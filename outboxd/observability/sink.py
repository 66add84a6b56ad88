"""A sink: a bounded queue with one thread behind it, so that whoever takes the log may block and the relay does not.

What finds the queue full is dropped and counted; when there is room again, the number is told once.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Line = TypeVar("Line")

QUEUE_LINES_MAX = 10_000


class Sink(Generic[Line]):
    """Writes lines on a thread of its own."""

    def __init__(
        self,
        write: Callable[[Line], None],
        *,
        on_dropped: Callable[[int], None] | None = None,
        lines_max: int = QUEUE_LINES_MAX,
    ) -> None:
        """`write` may block, and may raise OSError; `on_dropped` is told how many lines were dropped, on the sink's
        thread.
        """
        self._write = write
        self._on_dropped = on_dropped
        self._queue: queue.Queue[Line | None] = queue.Queue(lines_max)
        self._dropped = 0
        self._told = 0
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped, or could not be written, since the start."""
        return self._dropped + self._failed

    def put(self, line: Line) -> None:
        """Leave a line to be written; never waits."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_seconds: float) -> None:
        """Write what is queued, but for no longer than this; the thread ends with the process at the latest."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_seconds)
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._written(line)
            if self._queue.empty():
                self._tell()
        self._tell()
        with contextlib.suppress(queue.Empty):
            while (line := self._queue.get_nowait()) is not None:
                self._written(line)

    def _written(self, line: Line) -> None:
        try:
            self._write(line)
        except OSError:
            # Its reader is gone or the disk is full: there is nobody to tell but the counter.
            self._failed += 1

    def _tell(self) -> None:
        """Say how many were dropped, when there is room for that line again."""
        dropped = self._dropped - self._told
        if dropped and self._on_dropped is not None:
            self._told += dropped
            self._on_dropped(dropped)
