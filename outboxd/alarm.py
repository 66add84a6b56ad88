"""An alarm: a sleep that another thread can end, without the Python lock and the condition of an event."""

from __future__ import annotations

import threading
from contextlib import suppress


class Alarm:
    """One thread sleeps by it, any other rings it, and so may a signal's handler."""

    def __init__(self) -> None:
        """Nobody sleeps."""
        self._silence = threading.Lock()
        self._silence.acquire()

    def sleep(self, seconds: float) -> bool:
        """Sleep so long, or until it rings; return whether it rang, now or since the last sleep."""
        return self._silence.acquire(timeout=seconds)

    def ring(self) -> None:
        """End the sleep, or the next one."""
        # Another may have rung before.
        with suppress(RuntimeError):
            self._silence.release()
