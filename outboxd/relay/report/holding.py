"""Holding: topics whose breakers open and close, and records that leave memory to wait in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outboxd.policy.faults import Fault, fault_of
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import NO_HISTORY, Record
from outboxd.policy.topics.breakers import Breaker
from outboxd.policy.topics.topic_holds import HoldReason, TopicHolds
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.ports import Observer
from outboxd.relay.report.histories import STRAGGLERS_SECONDS, Histories
from outboxd.relay.report.stuck_partitions import StuckPartitions
from outboxd.relay.report.thens import GOES_ON, LEFT


class Holding:
    """Lives on the relay's thread."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        topics: TopicHolds,
        held: HeldRecords,
        ledger: Ledger,
        lanes: Lanes,
        histories: Histories,
        stuck: StuckPartitions,
        observer: Observer,
    ) -> None:
        """All of these are the relay's; holding changes them."""
        self._gate = gate
        self._topics = topics
        self._held = held
        self._ledger = ledger
        self._lanes = lanes
        self._histories = histories
        self._observer = observer
        self._stuck = stuck

    def close_breakers(self, records: Sequence[Record], now: float) -> None:
        """A delivery closes its topic's breaker: the probe's at once, another's when it cannot be a straggler."""
        for record in records:
            breaker = self._lanes.breakers.open.get(record.topic)
            if breaker is None or breaker.is_watched:
                continue
            if breaker.probing_id == record.id:
                # Sent after the fault, so it is no straggler: it speaks for the topic.
                self._lanes[record.topic].probe_passed_at = now
            if breaker.probing_id == record.id or now - breaker.opened_at > STRAGGLERS_SECONDS:
                self.close_breaker(record.topic, now)

    def close_idle_breaker(self, topic: str, now: float) -> None:
        """Nothing is left to probe the topic with: whatever its breaker opened for is gone, and new records try it."""
        self._lanes.storms.delivered(topic, now)
        self.close_breaker(topic, now)

    def close_breaker(self, topic: str, now: float) -> None:
        """The topic is well again: what was parked goes first, then what was deferred."""
        breaker = self._lanes.breakers.close(topic)
        if breaker is None:
            return
        self._topics.release(topic, HoldReason.BREAKER, now)
        self._held.want_parked(topic)
        self._tell_closed(topic, breaker, now, GOES_ON)

    def _tell_closed(self, topic: str, breaker: Breaker, now: float, then: str) -> None:
        seconds = round(now - breaker.opened_at, 3)
        code = breaker.fault.name
        self._observer.event("breaker_closed", topic=topic, error_code=code, open_seconds=seconds, then=then)

    def let_all_go(self, now: float) -> None:
        """The producer under which topics came to wait ends: all go on with the next, as whoever was told that they
        wait has to hear, and wait again where the fault lasts.
        """
        for topic in list(self._lanes.breakers.open):
            self._stuck.release_all(topic, now)
            self.close_breaker(topic, now)

    def leave_all(self, now: float) -> None:
        """The ownership ends: whoever was told that topics wait hears that this daemon holds them no longer. The next
        owner begins without holds, and tells its own.
        """
        for topic, breaker in self._lanes.breakers.open.items():
            if topic in self._stuck.topics:
                self._stuck.tell_left(topic)
            else:
                self._tell_closed(topic, breaker, now, LEFT)

    def open_breaker(self, topic: str, fault: Fault, message: str, now: float) -> None:
        """The topic waits, until a probe or what is in flight gets through."""
        # It was some of its partitions until now.
        self._stuck.release_all(topic, now)
        if self._lanes.breakers.trip(topic, fault, message, now):
            self._held.park_topic(topic)
            self._topics.hold(topic, HoldReason.BREAKER, now)
            self._gate.defer_waiting([topic])
            self._ledger.forget_dropped(self._gate)
            self._observer.event("breaker_opened", topic=topic, error_code=fault.name, cause=message)

    def try_again(self, topic: str, fault: Fault, now: float) -> None:
        """An operator let the topic go after a storm: one record at a time tries it, until one is delivered."""
        self.open_breaker(topic, fault, f"it stormed, and nothing was delivered since: {fault.meaning}", now)

    def try_all_again(self, untried: Mapping[str, int], now: float) -> None:
        """The same of topics that operators let go when the producer before this one had not tried them yet, each with
        the code that it stormed with.
        """
        for topic, code in untried.items():
            self._lanes.storms.calm(topic, code)
            self.try_again(topic, fault_of(code), now)

    def leave(self, record: Record, state: HeldState, why: str, now: float, due_at: float = 0.0) -> None:
        """The record leaves memory and is kept as held."""
        history = self._histories.by_id.pop(record.id, NO_HISTORY)
        gate_key = self._gate.key_of(record)
        self._histories.suspicions.forget(record.id)
        self._ledger.leave([record.id])
        self._held.add(HeldRecord.of(record, gate_key, history, state, why, since=now, due_at=due_at))
        self._ledger.forget_dropped(self._gate)
