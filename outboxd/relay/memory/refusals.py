"""Refusals: settlements that the database would not write, because of one of their rows or of a lock.

Nothing of a refused settlement is written, and which row is to blame is not known for every reason there is. So it is
given again in parts, whose size and place `refused_parts` chooses: whatever else is in it is written after a few dozen
statements, or about three for each row that is refused. What is refused alone is set aside and tried again after a
pause that grows, and the longer the more there is of it; once one of them is written the others are tried at once. It
stays in memory, within the limits of that; whatever else is delivered is settled meanwhile.

With Kafka transactions, what waits here keeps its transaction, and all after it, from being settled. So what is set
aside is stated again by the progress record of a later transaction: then those before that one may be settled.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from outboxd.policy.blame.backoff import failure_pause_seconds
from outboxd.policy.exchange.messages import ProgressRow
from outboxd.policy.exchange.requests import Settlement
from outboxd.relay.memory.refused_parts import RefusedParts

STUCK_TRIES = 6
"""So often, which takes some seconds, is what is set aside tried before who waits for its end waits no longer."""
TRIES_A_SECOND_MAX = 20
"""So often, taken together, is tried what was so often in vain, and are parts where nearly all are refused; thousands
of rows would else keep the server busy.
"""


class Aside(NamedTuple):
    """One outcome that was refused alone so often. `number` tells those apart that are due at the same time; `row` is
    what a progress record says of it, None where none does.
    """

    due_at: float
    number: int
    failures: int
    settlement: Settlement
    row: ProgressRow | None = None


class Refusals:
    """What is left of refused settlements, waiting to be given again. Lives on the relay's thread."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._parts = RefusedParts()
        self._aside: list[Aside] = []
        self._is_slow = False
        """Whether some of it waits for longer than its own failures say."""
        self._last_due_at = float("-inf")
        """When the last of what was so often tried in vain is due."""
        self._numbers = count()
        self._trying: Aside | None = None
        self.last_told = ""
        """What was set aside last, and why, in words; empty where nothing is."""
        self._restated: dict[ProgressRow, int] = {}
        self._are_new = False
        self._settled_max: int | None = None
        self._is_settled_max_known = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing that was refused waits; what is under way does not."""
        return not (self._parts or self._aside)

    @property
    def are_aside(self) -> bool:
        """Whether nothing waits but what is set aside."""
        return not self._parts

    @property
    def rows_aside(self) -> int:
        """How many outcomes are set aside, with the one that is tried just now."""
        return len(self._aside) + (self._trying is not None)

    @property
    def records(self) -> int:
        """How many records have an outcome that waits here; what is under way does not."""
        return self._parts.records + len(self._aside)

    @property
    def refused_rows(self) -> int:
        """How many records have an outcome that was refused, with the one that is tried again just now: a try that
        waits for a lock takes its time, and nothing is well meanwhile.
        """
        return self.records + (self._trying is not None)

    @property
    def next_at(self) -> float | None:
        """When the next of it may be given, None where there is nothing."""
        if self._parts:
            return float("-inf")
        return self._aside[0].due_at if self._aside else None

    def waiting(self) -> list[Settlement]:
        """Return all that waits."""
        return [*self._parts.waiting(), *(aside.settlement for aside in self._aside)]

    def ids_aside(self) -> set[int]:
        """Return the ids of the rows that are set aside, whatever their outcome."""
        return {record_id for aside in self._all_aside() for record_id in aside.settlement.outbox_ids}

    @property
    def are_stuck(self) -> bool:
        """Whether something is set aside, and each of it was tried in vain again and again."""
        # With the one that is tried: of many there always is one, where each waits for a lock.
        tries = min((aside.failures for aside in self._all_aside()), default=0)
        return not self._parts and tries >= STUCK_TRIES

    def hurry(self, now: float) -> None:
        """Somebody waits for the end of this: try what is set aside soon, one after the other."""
        soon = enumerate(sorted(self._aside))
        self._aside = [
            aside._replace(due_at=min(aside.due_at, now + place / TRIES_A_SECOND_MAX)) for place, aside in soon
        ]
        heapq.heapify(self._aside)

    def take(self, now: float) -> Settlement | None:
        """Return what is to be given again now, or None."""
        part = self._parts.take()
        if part is not None:
            self._is_settled_max_known = False
            return part
        if self._aside and self._aside[0].due_at <= now:
            self._trying = heapq.heappop(self._aside)
            return self._trying.settlement
        return None

    def ended(self) -> bool:
        """The settlement under way was written. Say whether it was the last that was set aside."""
        self._parts.written()
        tried, self._trying = self._trying, None
        if tried is None:
            return False
        if self._is_slow:
            # What was in the way of this one may have been in the way of all.
            self._is_slow, self._last_due_at = False, float("-inf")
            self._aside = [aside._replace(due_at=float("-inf"), failures=0) for aside in self._aside]
            heapq.heapify(self._aside)
        self._is_settled_max_known = False
        if tried.row is not None:
            self._restated.pop(tried.row, None)
            self._are_new = True
        if not self._aside:
            self.last_told = ""
        return not self._aside

    # What keeps transactions from being settled.

    def settled_max(self) -> int | None:
        """Return the last transaction that may be settled while all this waits, None where nothing of it matters."""
        if self.is_empty:
            return None
        if not self._is_settled_max_known:
            # It is asked for in each turn, and many may be set aside.
            self._is_settled_max_known = True
            self._settled_max = self._least_above()
        return self._settled_max

    def _least_above(self) -> int | None:
        above = [piece.above for piece in self._parts.waiting() if piece.is_in_progress_records]
        for aside in self._all_aside():
            if aside.settlement.is_in_progress_records:
                restated = 0 if aside.row is None else self._restated.get(aside.row, 0)
                above.append(max(aside.settlement.above, restated))
        return min(above, default=None)

    def new_rows(self) -> list[ProgressRow] | None:
        """Return what is set aside as progress records have it, where that changed since the last call, once no more is
        being looked for; else None.
        """
        if not self._are_new or self._parts:
            return None
        self._are_new = False
        return self._rows()

    def _rows(self) -> list[ProgressRow]:
        return [aside.row for aside in self._all_aside() if aside.row is not None]

    def _all_aside(self) -> list[Aside]:
        return [*self._aside, *([] if self._trying is None else [self._trying])]

    def restated(self, transaction: int, rows: Sequence[ProgressRow]) -> None:
        """The progress record of this transaction states these again: those before it are not needed for that."""
        self._is_settled_max_known = False
        # Some may be settled by now.
        self._restated.update(dict.fromkeys(set(rows).intersection(self._rows()), transaction - 1))

    @property
    def tries_aside(self) -> bool:
        """Whether what is under way was set aside before."""
        return self._trying is not None

    def refused(self, settlement: Settlement, now: float, row: ProgressRow | None = None) -> bool:
        """The settlement under way was refused: it waits in parts, or is set aside. Say which: whether it is aside.

        `row` is told in `Aside`.
        """
        tried, self._trying = self._trying, None
        if tried is None:
            self._is_settled_max_known = False
            if self._parts.refused(settlement):
                return False
        failures = 1 if tried is None else tried.failures + 1
        due_at = self._due_at(now, failures)
        heapq.heappush(self._aside, Aside(due_at, next(self._numbers), failures, settlement.part(0, 1), row))
        self._are_new = self._are_new or (tried is None and row is not None)
        return True

    def _due_at(self, now: float, failures: int) -> float:
        """Return when the next try is. What was so often tried in vain takes turns, one after the other: not all at
        once after a longer pause, since the first that is written tells that the others may be.
        """
        own_due_at = now + failure_pause_seconds(failures)
        if failures < STUCK_TRIES:
            return own_due_at
        self._last_due_at = max(own_due_at, self._last_due_at + 1 / TRIES_A_SECOND_MAX)
        self._is_slow = self._is_slow or self._last_due_at > own_due_at
        return self._last_due_at
