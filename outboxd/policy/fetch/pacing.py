"""Pacing: when to read again. At once while rows flow; ever later, up to a bound, while none come."""

from __future__ import annotations


class Pacing:
    """The pause before the next read: doubled after each empty one, from the least to the most."""

    def __init__(self, pause_seconds_min: float, pause_seconds_max: float) -> None:
        """Both bounds are in seconds; the first read is due at once."""
        self._min = pause_seconds_min
        self.pause_seconds_max = pause_seconds_max
        self._pause = pause_seconds_min

    def within(self, pause_seconds_min: float, pause_seconds_max: float) -> None:
        """Keep to other bounds from now on."""
        self._min, self.pause_seconds_max = pause_seconds_min, pause_seconds_max
        self._pause = min(max(self._pause, self._min), self.pause_seconds_max)

    def after_read(self, rows: int) -> float:
        """Return the pause after a read that showed so many rows."""
        if rows:
            self._pause = self._min
            return self._min
        pause = self._pause
        self._pause = min(self.pause_seconds_max, self._pause * 2)
        return pause

    def woken(self) -> None:
        """Something is known to be there: read soon again after the next read too."""
        self._pause = self._min
