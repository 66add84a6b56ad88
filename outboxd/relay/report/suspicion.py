"""Suspicion: whose fault a batch's refusal is, where the same code may be a row's own or the whole topic's.

A wrong clock and a single old row get the same answer from the broker. What tells them apart is a batch-mate: it was
refused with the same code, went again alone, and passed. The row that goes alone once more after that, and is refused
again, is itself to blame. Until then nobody is.
"""

from __future__ import annotations

import enum
from collections import OrderedDict

from outboxd.relay.ports import Report

BATCH_MATES_SECONDS = 1.0
"""How long a row that was refused alone waits for what its batch-mates meet."""
PASSED_MAX = 1_000
"""Of so many topics it is remembered that a suspect passed: a mate of an earlier one is not blamed, its topic held."""


class Finding(enum.Enum):
    """What is known of a row that was refused alone."""

    GUILTY = "guilty"
    """A batch-mate passed before the row was sent alone for the last time."""
    AGAIN = "again"
    """A batch-mate passed meanwhile: send the row alone once more."""
    WAIT = "wait"
    """Batch-mates may still be on their way."""
    OPEN = "open"
    """Nobody passed: it may be the topic's fault."""


class Suspicions:
    """The suspects that are on their way alone, and what their like met."""

    def __init__(self) -> None:
        """Start with none."""
        self._since: dict[int, tuple[float, int]] = {}
        self._sent_again: set[int] = set()
        self._passed_at: OrderedDict[tuple[str, int], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def suspect(self, record_id: int, code: int, now: float) -> None:
        """The record's batch was refused with this code; it goes alone from now on."""
        self._since[record_id] = (now, code)
        self._sent_again.discard(record_id)

    def passed(self, report: Report, now: float) -> None:
        """A record was delivered; when it was a suspect and went alone, it speaks for its topic."""
        suspected = self._since.pop(report.record.id, None)
        self._sent_again.discard(report.record.id)
        if suspected is not None and report.alone:
            topic_and_code = report.record.topic, suspected[1]
            self._passed_at[topic_and_code] = now
            self._passed_at.move_to_end(topic_and_code)
            if len(self._passed_at) > PASSED_MAX:
                self._passed_at.popitem(last=False)

    def find(self, report: Report, code: int, refused_at: float, now: float, *, others_in_flight: bool) -> Finding:
        """Return what is known of a record that was refused alone at `refused_at`, at the time `now`."""
        record_id, topic = report.record.id, report.record.topic
        if record_id in self._sent_again:
            return Finding.GUILTY
        since, first_code = self._since.get(record_id, (refused_at, code))
        if first_code == code and self._passed_at.get((topic, code), float("-inf")) > since:
            self._sent_again.add(record_id)
            return Finding.AGAIN
        if others_in_flight and now - refused_at < BATCH_MATES_SECONDS:
            return Finding.WAIT
        return Finding.OPEN

    def is_sent_again(self, record_id: int) -> bool:
        """Say whether the record went alone once more after a batch-mate had passed."""
        return record_id in self._sent_again

    def forget(self, record_id: int) -> None:
        """The record's outcome is known, or it waits in the database."""
        self._since.pop(record_id, None)
        self._sent_again.discard(record_id)
