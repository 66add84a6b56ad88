"""Gaps: ids that were drawn but not seen, and when one may be given up.

Ids are drawn before their transactions commit, so a snapshot may show id 7 while 5 commits later. Each read
therefore asks again for the gaps below its position (the look-back). A gap closes by the fence that holds for ids
drawn by their INSERT: an INSERT takes RowExclusiveLock on the outbox *before* it draws its id and keeps it to the
end of its transaction. So the life of a gap is

    new ──(locks were read after it was noticed)──▶ fenced ──(all of those transactions are gone)──▶ ripe
        ──(a snapshot taken later still lacks the id)──▶ closed

Whatever escapes this fence (ids drawn long before their INSERT) is found by the sweep of the pending index, without
order.

A prepared transaction continues a fenced one under another virtual transaction id (`-1/…`), so when a fenced one
vanishes, the prepared ones that are there join the fence.

The number of gaps is bounded: beyond it the nearest neighbours are merged, so that the ids between them are asked for
again. The relay knows what is pending of these, in memory or as deferred, and the look-back leaves that out: it would
else take the room of what is new, and break the merged gaps into pieces for which there is no room either.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable
from dataclasses import dataclass

PREPARED_PREFIX = "-1/"


@dataclass(slots=True)
class Gap:
    """Ids from `low` to `high`, both included. `fence` is None until locks were read; empty means ripe. `is_merged`:
    ids that were seen may be among them.
    """

    low: int
    high: int
    fence: frozenset[str] | None = None
    is_merged: bool = False


class Gaps:
    """The gaps below the forward read's position, in id order."""

    def __init__(self, gaps_max: int = 2_000) -> None:
        """`gaps_max` bounds how many ranges one look-back asks for."""
        self._gaps_max = gaps_max
        self._gaps: list[Gap] = []
        self._merged_to: int | None = None

    def __len__(self) -> int:
        return len(self._gaps)

    def ranges(self) -> tuple[list[int], list[int]]:
        """Return the low and the high ends, as the look-back statement wants them."""
        return [gap.low for gap in self._gaps], [gap.high for gap in self._gaps]

    def covers(self, record_id: int) -> bool:
        """Say whether the next look-back asks for this id."""
        place = bisect.bisect_right(self._gaps, record_id, key=_low_of) - 1
        return place >= 0 and record_id <= self._gaps[place].high

    @property
    def merged_to(self) -> int | None:
        """The highest id that is asked for though it may have been seen; None where there is none."""
        return self._merged_to

    def clear(self) -> None:
        """Forget all gaps: the forward read starts again from the beginning."""
        self._gaps.clear()
        self._merged_to = None

    def forget_above(self, position: int) -> None:
        """The forward read goes on from there once more, so it will notice again what it does not show."""
        self._gaps = [gap for gap in self._gaps if gap.low <= position]
        if self._gaps:
            self._gaps[-1].high = min(self._gaps[-1].high, position)
        self._note_merged()

    def seen_below(self, low_exclusive: int, high_inclusive: int, ids: Iterable[int]) -> None:
        """Note what a forward read of (low_exclusive, high_inclusive] did not show. `ids` are in ascending order."""
        expected = low_exclusive + 1
        append = self._gaps.append
        for record_id in ids:
            if record_id != expected:
                append(Gap(expected, record_id - 1))
            expected = record_id + 1
        if expected <= high_inclusive:
            append(Gap(expected, high_inclusive))
        if len(self._gaps) > self._gaps_max:
            self._merge_nearest()

    def looked_back(
        self, asked: int, found: Collection[int], locks: frozenset[str], *, complete_to: int | None = None
    ) -> None:
        """Take the answer of a look-back that asked for the first `asked` gaps.

        Args:
            asked: how many of the present gaps the statement asked for (later ones were noticed by its own forward
                part).
            found: the ids that it showed.
            locks: virtual transactions that held RowExclusiveLock or stronger on the outbox, read at or after its
                snapshot.
            complete_to: when a limit cut the look-back, the last id up to which it is complete; None when it was
                not cut.
        """
        kept: list[Gap] = []
        shown = sorted(found)
        for gap in self._gaps[:asked]:
            if complete_to is not None and gap.high > complete_to:
                kept.extend(_without(gap, shown))
                continue
            kept.extend(piece for piece in _without(gap, shown) if not self._closes(piece, locks))
        kept.extend(self._gaps[asked:])
        self._gaps = kept
        if len(kept) > self._gaps_max:
            self._merge_nearest()
        elif self._merged_to is not None:
            self._note_merged()

    @staticmethod
    def _closes(gap: Gap, locks: frozenset[str]) -> bool:
        if gap.fence is None:
            gap.fence = locks
            return False
        if not gap.fence:
            return True
        remaining = gap.fence & locks
        if len(remaining) != len(gap.fence):
            remaining |= {lock for lock in locks if lock.startswith(PREPARED_PREFIX)}
        gap.fence = remaining
        return False

    def _merge_nearest(self) -> None:
        distances = sorted(
            (self._gaps[place + 1].low - self._gaps[place].high, place) for place in range(len(self._gaps) - 1)
        )
        # Half of the room is made at once, so that merging is rare.
        bridges = {place for _, place in distances[: len(self._gaps) - self._gaps_max // 2]}
        merged: list[Gap] = []
        for place, gap in enumerate(self._gaps):
            if merged and place - 1 in bridges:
                last = merged[-1]
                last.high = gap.high
                last.fence = None if last.fence is None or gap.fence is None else last.fence | gap.fence
                last.is_merged = True
            else:
                merged.append(gap)
        self._gaps = merged
        self._note_merged()

    def _note_merged(self) -> None:
        self._merged_to = next((gap.high for gap in reversed(self._gaps) if gap.is_merged), None)


def _low_of(gap: Gap) -> int:
    return gap.low


def _without(gap: Gap, shown: list[int]) -> list[Gap]:
    """Return the gap without the ids that were shown: itself, smaller, in pieces, or nothing."""
    start = bisect.bisect_left(shown, gap.low)
    stop = bisect.bisect_right(shown, gap.high)
    if start == stop:
        return [gap]
    pieces: list[Gap] = []
    expected = gap.low
    for record_id in shown[start:stop]:
        if record_id > expected:
            pieces.append(Gap(expected, record_id - 1, gap.fence, gap.is_merged))
        expected = max(expected, record_id + 1)
    if expected <= gap.high:
        pieces.append(Gap(expected, gap.high, gap.fence, gap.is_merged))
    return pieces
