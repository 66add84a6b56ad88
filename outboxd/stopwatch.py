"""A stopwatch on a thread's job under way, read by others: a job that never ends is what the watchdog looks for."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self


class Stopwatch:
    """Measures one job at a time. One thread runs it, any may read it."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._began_at: float | None = None

    def running(self) -> Self:
        """Return what a `with` statement takes: a job is under way within it."""
        return self

    def __enter__(self) -> Self:
        self._began_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._began_at = None

    def lap(self) -> None:
        """The job under way advances: it is measured from now on. On the thread that runs it."""
        if self._began_at is not None:
            self._began_at = time.monotonic()

    def seconds(self) -> float:
        """Return for how long the job under way has lasted, or not advanced; 0 while there is none."""
        began_at = self._began_at
        return 0.0 if began_at is None else time.monotonic() - began_at
