"""Strides: how many ids one statement of a walk over an index may pass. Pure; times are arguments.

A limit bounds the rows that a statement finds, not the dead ones that it passes over, and behind an old snapshot there
may be millions of these. A walk is one statement as long as that is quick. Where it was not, the next ones begin with
all ids up to far below the position, and go on from there in strides: so far below that the beginning is quick again.

What any statement costs, on a slow network or in a busy database, is no reason for more of them. So a walk in strides
asks for no id at all before it begins, and what that took is taken off what the others took. Strides that were quick
become part of the beginning again: a walk has no more of them than what there is to pass over needs, and never more
than a fixed number.
"""

from __future__ import annotations

from outboxd.policy.rows.records import FIRST_ID, ID_MAX

STRIDE_IDS = 50_000
STRIDES_MAX = 200
"""A longer way is gone in larger strides."""
SLOW_SECONDS = 0.03
_BEGINNING_END_MIN = 0
"""Sequences begin above it. The few rows that somebody gave a lower id need no strides."""


class Strides:
    """Where each chunk of a walk ends, learned from how long the chunks of the walk before took."""

    def __init__(self) -> None:
        """Begin with walks of one statement."""
        self._beginning_end: int | None = None
        """Where the beginning of a walk ends; None while it goes all the way."""
        self._empty_seconds = 0.0
        """What a statement takes that passes over nothing."""
        self._position = 0
        self._ends: list[int] = []
        self._seconds: list[float] = []

    def begin(self, position: int) -> None:
        """A walk up to `position` begins."""
        end = self._beginning_end
        if end is not None and end >= position:
            # Reading went back meanwhile.
            end = self._beginning_end = None
        self._position = position
        self._ends = [ID_MAX if end is None else FIRST_ID]
        self._seconds = []

    def end(self, position: int) -> int:
        """Return the last id of the next chunk; `position` itself where it is to be the last chunk."""
        return min(self._ends[-1], position)

    def took(self, seconds: float, *, is_full: bool) -> None:
        """A statement took so long. One that `is_full` showed as many rows as it might, so it is rows that it took the
        time for, and no stride would make it shorter.
        """
        if not is_full:
            self._seconds.append(seconds)

    def go_on(self) -> int:
        """All up to the chunk's end was seen, and the walk is not at its position yet: return where it goes on."""
        seen_to, beginning_end = self._ends[-1], self._beginning_end or 0
        # Rounded up, so that it is the last stride that reaches the position.
        stride_ids = max(STRIDE_IDS, -((beginning_end - self._position) // STRIDES_MAX))
        self._ends.append(beginning_end if seen_to == FIRST_ID else seen_to + stride_ids)
        return seen_to

    def walked(self) -> None:
        """The walk is at its position: where are strides needed in the next one?"""
        chunks = list(zip(self._ends, self._seconds, strict=True))
        quickest = min(self._seconds)
        if self._beginning_end is None:
            self._empty_seconds = min(quickest, self._empty_seconds)
        elif len(chunks) > 1:
            self._empty_seconds = quickest
            del chunks[0]
        else:
            # Reading went back meanwhile, so the beginning was not walked.
            return
        (_, beginning), *strides = chunks
        if self._beyond_empty(beginning) > SLOW_SECONDS:
            self._cut_beginning()
        else:
            self._lengthen_beginning(beginning, strides)

    def _beyond_empty(self, seconds: float) -> float:
        # Twice, since no two take the same time.
        return max(0.0, seconds - 2 * self._empty_seconds)

    def _cut_beginning(self) -> None:
        end = self._position if self._beginning_end is None else self._beginning_end
        reach_ids = max(2 * STRIDE_IDS, 4 * (self._position - end))
        end = max(_BEGINNING_END_MIN, self._position - reach_ids)
        self._beginning_end = end if end < self._position else None

    def _lengthen_beginning(self, beginning_seconds: float, strides: list[tuple[int, float]]) -> None:
        """Have the beginning pass over the first strides, too, as far as it stays quick then."""
        seconds_left = SLOW_SECONDS / 2 - self._beyond_empty(beginning_seconds)
        for end, seconds in strides:
            seconds_left -= self._beyond_empty(seconds)
            if seconds_left < 0:
                return
            self._beginning_end = end
        self._beginning_end = None
