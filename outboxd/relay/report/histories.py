"""Histories: what the records that failed went through, while they are in memory or held."""

from __future__ import annotations

from outboxd.policy.faults import Fault, FaultClass
from outboxd.policy.rows.records import NO_HISTORY, FailureHistory, Record
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.memory.lanes import Lane
from outboxd.relay.report.suspicion import Suspicions

STRAGGLERS_SECONDS = 1.0
"""Records sent before a fault may be acknowledged this long after it; they prove nothing about the time since."""
NEIGHBOURS_SECONDS = 5.0
"""A neighbour delivered longer ago than this says nothing about the topic now."""


class Histories:
    """`by_id` is what is known from before of the records that go now; `failed` when they failed last, relay's
    time, and with which code.
    """

    def __init__(self, topics: TopicHolds) -> None:
        """`topics` tells how long a topic was held, which does not count as a record's age."""
        self._topics = topics
        self.by_id: dict[int, FailureHistory] = {}
        self.failed: dict[int, tuple[float, int]] = {}
        self.suspicions = Suspicions()
        self._aging_since: dict[int, float] = {}

    def of(self, record_id: int) -> FailureHistory:
        """Return what the record went through before."""
        return self.by_id.get(record_id, NO_HISTORY)

    def ages(self, record_id: int, topic: str, now: float, own_age_seconds: float = 0.0) -> None:
        """A failure of the record is counted: its age runs from the first one. `own_age_seconds` is how old it was at
        the last one that an owner before counted.
        """
        self._aging_since.setdefault(record_id, self._topics.own_time(topic, now) - own_age_seconds)

    def own_age_seconds(self, record: Record, now: float) -> float:
        """Time since the first counted failure, without time on hold or paused.

        Between the last failure that an owner before counted and this ownership it stands still: how long the topic
        was held then is not known, and an outage must not let rows expire.
        """
        own_time = self._topics.own_time(record.topic, now)
        return own_time - self._aging_since.get(record.id, own_time)

    def neighbours_delivered(self, record: Record, fault: Fault, lane: Lane, now: float) -> bool:
        """Say whether other records of the topic got through since this one failed before, or just now."""
        failed_before_at, code_before = self.failed.get(record.id, (None, None))
        if fault.unless_neighbour_passes and code_before != fault.code:
            # What others met before the first refusal of this kind says nothing about it.
            return False
        if failed_before_at is None:
            # Nobody can tell yet whose fault it is, unless the fault is a row's by nature and the topic is well.
            return fault.fault_class is FaultClass.ROW_PASSING and now - lane.last_delivered_at < STRAGGLERS_SECONDS
        return (
            max(lane.last_delivered_at - STRAGGLERS_SECONDS, lane.probe_passed_at) > failed_before_at
            and now - lane.last_delivered_at < NEIGHBOURS_SECONDS
        )

    def ended(self, record_id: int) -> FailureHistory | None:
        """The record is delivered: forget how it aged, and return what it went through."""
        self._aging_since.pop(record_id, None)
        return self.by_id.pop(record_id, None)

    def forget(self, record_id: int) -> None:
        """The record is gone from the database."""
        self.by_id.pop(record_id, None)
        self.failed.pop(record_id, None)
        self.suspicions.forget(record_id)
        self._aging_since.pop(record_id, None)
