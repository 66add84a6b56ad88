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
WINDOW_SECONDS = 600.0
RIVAL_SECONDS = 10.0
"""So long after its first fencing of a producer, all are taken for the same rival's: its one `init_transactions` fences
up to three times, within about a second, since its client tries again while a transaction of ours is open.
"""


class Fencings:
    """Counts within a window. Times are monotonic seconds."""

    def __init__(self, rival_seconds: float = 0.0) -> None:
        """What comes within `rival_seconds` of a rival's first fencing is that rival's too, and counts once."""
        self._rival_seconds = rival_seconds
        self._at: deque[float] = deque(maxlen=FENCINGS_MAX)

    def fenced(self, now: float) -> bool:
        """Note one, and say whether they are too many by now."""
        if not self._at or now - self._at[-1] >= self._rival_seconds:
            self._at.append(now)
        return len(self._at) == self._at.maxlen and now - self._at[0] <= WINDOW_SECONDS
