"""Strides: how many ids one statement of a walk over an index may pass. Pure; times are arguments.

A limit bounds the rows that a statement finds, not the dead ones that it passes over, and behind an old snapshot there
may be millions of these. A walk is one statement as long as that is quick. Where it was not, the next ones begin with
all ids up to far below the position, and go on from there in strides: so far below that the beginning is quick again.
"""

from __future__ import annotations

ID_MIN = -(2**63)
STRIDE_IDS = 50_000
SLOW_SECONDS = 0.03
_REACH_IDS_MAX = 2**62


class Strides:
    """Where each chunk of a walk ends, learned from how long the chunks before took."""

    def __init__(self) -> None:
        """Begin with walks of one statement."""
        self._reach_ids = 0
        self._end: int | None = None
        self._is_beginning = True

    def begin(self, position: int) -> None:
        """A walk up to `position` begins."""
        self._end = max(ID_MIN + 1, position - self._reach_ids) if self._reach_ids else None
        self._is_beginning = True

    def end(self, position: int) -> int:
        """Return the last id of the next chunk; `position` itself where it is to be the last chunk."""
        return position if self._end is None else min(self._end, position)

    def took(self, seconds: float) -> None:
        """A chunk took so long: where a walk's beginning is slow, the next one goes more of its way in strides."""
        if self._is_beginning and seconds > SLOW_SECONDS:
            self._reach_ids = min(_REACH_IDS_MAX, max(2 * STRIDE_IDS, 4 * self._reach_ids))

    def go_on(self) -> None:
        """All up to the chunk's end was seen, and the walk is not at its position yet."""
        self._is_beginning = False
        if self._end is not None:
            self._end += STRIDE_IDS

    def walked(self, seconds: float) -> None:
        """A whole walk took so long: where it was quick, the next one needs fewer strides."""
        if seconds < SLOW_SECONDS:
            self._reach_ids = self._reach_ids // 4 if self._reach_ids >= 4 * STRIDE_IDS else 0
