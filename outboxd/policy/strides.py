"""Strides: how many ids one statement of a walk over an index may pass. Pure; times are arguments.

A limit bounds the rows that a statement finds, not the dead ones that it passes over, and behind an old snapshot there
may be millions of these. A walk is one statement as long as that is quick. Where it was not, the next ones begin with
all ids up to far below the position, and go on from there in strides: so far below that the beginning is quick again.
"""

from __future__ import annotations

from outboxd.policy.records import FIRST_ID

STRIDE_IDS = 50_000
SLOW_SECONDS = 0.03
_REACH_IDS_MAX = 2**62
_LAST_ID = 2**63 - 1


class Strides:
    """Where each chunk of a walk ends, learned from how long the chunks before took."""

    def __init__(self) -> None:
        """Begin with walks of one statement."""
        self._reach_ids = 0
        self._end = _LAST_ID
        self._is_beginning = True

    def begin(self, position: int) -> None:
        """A walk up to `position` begins."""
        self._end = max(FIRST_ID + 1, position - self._reach_ids) if self._reach_ids else _LAST_ID
        self._is_beginning = True

    def end(self, position: int) -> int:
        """Return the last id of the next chunk; `position` itself where it is to be the last chunk."""
        return min(self._end, position)

    def took(self, seconds: float) -> None:
        """A chunk took so long: where a walk's beginning is slow, the next one goes more of its way in strides."""
        if self._is_beginning and seconds > SLOW_SECONDS:
            self._reach_ids = min(_REACH_IDS_MAX, max(2 * STRIDE_IDS, 4 * self._reach_ids))

    def go_on(self) -> int:
        """All up to the chunk's end was seen, and the walk is not at its position yet: return where it goes on."""
        self._is_beginning = False
        seen_to, self._end = self._end, self._end + STRIDE_IDS
        return seen_to

    def walked(self, seconds: float) -> None:
        """A whole walk took so long: where it was quick, the next one needs fewer strides."""
        if seconds < SLOW_SECONDS:
            self._reach_ids = self._reach_ids // 4 if self._reach_ids >= 4 * STRIDE_IDS else 0
