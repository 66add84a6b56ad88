"""Trust: until when this daemon may believe that nobody else owns the outbox.

It is measured by a clock that goes on while the machine sleeps. The monotonic clock stands still then, and the lease
does not: an owner that woke would trust, and publish, under a lease that was taken long ago.
"""

from __future__ import annotations

import time

MARGIN_SHARE = 0.1
"""The part of the ttl by which trust ends before the lease does: clocks drift, and threads wake late."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wakeful_time() -> float:
    """Return the time of a clock that neither goes back nor stands still while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class Trust:
    """The lease's trust. The lease's thread begins and ends it, any may ask."""

    def __init__(self, ttl_seconds: float) -> None:
        """There is none yet."""
        self._seconds = ttl_seconds * (1 - MARGIN_SHARE)
        self._until = float("-inf")

    def begin(self, sent_at: float) -> None:
        """Trust from the `wakeful_time` before the acquisition or the renewal was sent, which succeeded."""
        self._until = sent_at + self._seconds

    def end(self) -> None:
        """Trust no more."""
        self._until = float("-inf")

    def is_over(self) -> bool:
        """Say whether it ran out, or was ended."""
        return wakeful_time() >= self._until

    def until(self) -> float:
        """Return the monotonic time up to which it lasts, if the machine does not sleep until then."""
        return time.monotonic() + (self._until - wakeful_time())
