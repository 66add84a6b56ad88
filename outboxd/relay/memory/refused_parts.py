"""The parts of refused settlements: what of them is given again next, and how much of it at once.

Which of its rows is to blame for a refusal is not known. Where few are, halves find them soonest; where every second
one is, halving all would take two statements a row, and the first that is written would come last. So the size of a
part is learned: it is halved after each that was refused and doubled after each that was written. Rows that are refused
often stand side by side, and so do those that are not. So where a part is written what stands beside it follows, twice
as much each time; and where one is refused the next is of another place, in the end of the middle between any two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from outboxd.policy.exchange.requests import Settlement


class RefusedParts:
    """What was refused with other outcomes and is not found out yet. At most one part of it is under way."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self.records = 0
        """How many records have an outcome that waits here, since there may be too many pieces to add them up."""
        self._pieces: deque[Settlement] = deque()
        self._first_max = 1
        """How many outcomes the first part of a piece may have."""
        self._following_max = 0
        """How many the next part may have, where it stands beside one that was written; else 0."""
        self._entries = 0
        """How many the part under way has; 0 where none is."""
        self._has_rest = False
        """Whether the first piece is what is left of the one whose part is under way."""

    def __len__(self) -> int:
        """How many pieces wait."""
        return len(self._pieces)

    def waiting(self) -> Sequence[Settlement]:
        """Return all that waits; what is under way does not."""
        return self._pieces

    def take(self) -> Settlement | None:
        """Return the part to be given next, None where nothing waits. It is under way until `written` or `refused`."""
        if not self._pieces:
            return None
        part = self._pieces.popleft()
        entries, entries_max = part.entries, self._following_max or self._first_max
        self._has_rest = entries > entries_max
        if self._has_rest:
            self._pieces.appendleft(part.part(entries_max, entries))
            part = part.part(0, entries_max)
        self._entries = min(entries, entries_max)
        self.records -= part.records
        return part

    def written(self) -> None:
        """What was under way was written, whether it was of this or not."""
        if not self._entries:
            return
        if not self._following_max:
            self._first_max = max(self._first_max, 2 * self._entries)
        self._following_max = 2 * self._entries if self._has_rest else 0
        self._entries = 0

    def refused(self, settlement: Settlement) -> bool:
        """What was under way was refused. Say whether it waits here again: one outcome alone does not."""
        entries = settlement.entries
        if not self._entries:
            if entries > 1:
                self._add(settlement)
            return entries > 1
        if not self._following_max:
            self._first_max = max(1, self._first_max // 2)
        self._following_max = self._entries = 0
        if self._has_rest:
            rest = self._pieces.popleft()
            self.records -= rest.records
            self._halve(rest)
        if entries > 1:
            self._halve(settlement)
        return entries > 1

    def _add(self, settlement: Settlement) -> None:
        """Several outcomes were refused together that are no part of this."""
        if not self._pieces:
            # Else it says nothing of what waits.
            self._first_max = settlement.entries // 2
        self._halve(settlement)

    def _halve(self, settlement: Settlement) -> None:
        entries = settlement.entries
        middle = entries // 2
        self._pieces += [
            settlement.part(start, stop) for start, stop in ((0, middle), (middle, entries)) if stop > start
        ]
        self.records += settlement.records
