"""Fencings: how often a rival took the lease, or the shard's `transactional.id`, while this daemon held the lease.

Once is an accident; thrice is two daemons that fight, or a database whose clock jumps, and somebody has to look.
"""

from __future__ import annotations

from collections import deque

RIVAL = "another daemon owns the outbox"
MOVED = (
    "PostgreSQL failed over, or the outbox's table was truncated, rewritten or replaced: nothing known is true there"
)
"""Why an owner stands down; the second is nobody's fault, and no fencing."""
FENCED_CODES = frozenset({"_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"})
"""What a transactional producer fails with once another took its `transactional.id`."""
FENCINGS_MAX = 3
PRODUCER_FENCINGS_MAX = 9
"""A rival's one `init_transactions` may fence up to three times, since its client tries again while a transaction of
ours is open: so this is three rivals, as for the lease.
"""
WINDOW_SECONDS = 600.0


class Fencings:
    """Counts within a window. Times are monotonic seconds."""

    def __init__(self, fencings_max: int = FENCINGS_MAX, window_seconds: float = WINDOW_SECONDS) -> None:
        """So many within so long are too many."""
        self._window_seconds = window_seconds
        self._at: deque[float] = deque(maxlen=fencings_max)

    def fenced(self, now: float) -> bool:
        """Note one, and say whether they are too many by now."""
        self._at.append(now)
        return len(self._at) == self._at.maxlen and now - self._at[0] <= self._window_seconds
