"""Storming: a topic of which many keys fail for good with one code is held, until an operator resumes it.

What holds it stands in `control`, which the operator takes away; so one of its rows is put in `retry` too, with no
attempt counted, and stays there until it is delivered or dead. By that an owner to come knows of the storm whoever
relays when the operator resumes, and lets one row at a time try the topic (see `orders`).
"""

from __future__ import annotations

from outboxd.policy.blame.cause import cause
from outboxd.policy.blame.outcomes import Retry
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import storm_note
from outboxd.policy.topics.topic_holds import HoldReason, TopicHolds
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.settling import Settling
from outboxd.relay.ports import Observer, Report
from outboxd.relay.report.histories import Histories
from outboxd.relay.report.holding import Holding


class Storming:
    """Lives on the relay's thread."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        topics: TopicHolds,
        lanes: Lanes,
        settling: Settling,
        histories: Histories,
        holding: Holding,
        observer: Observer,
    ) -> None:
        """All of these are the relay's; storming changes them."""
        self._gate = gate
        self._topics = topics
        self._lanes = lanes
        self._settling = settling
        self._histories = histories
        self._holding = holding
        self._observer = observer
        self._unmarked: set[str] = set()
        """The topics that storm and of which no row is to be put in `retry` yet."""

    def is_held(self, topic: str) -> bool:
        """Say whether the topic stormed, and nobody has resumed it yet."""
        return HoldReason.STORM in self._topics.held.get(topic, ())

    def hold(self, report: Report, now: float) -> None:
        """This failure makes the storm, or is one of it: its record waits for the operator's word."""
        error, record = report.error, report.record
        if error is None:
            return
        fault, topic = error.fault, record.topic
        message = cause(fault, error.text, topic, report.partition)
        if not self.is_held(topic):
            self._settling.storm(self._lanes.storm(topic, fault), storm_note(fault))
            self._unmarked.add(topic)
            self._gate.defer_waiting([topic])
            self._observer.event("storm_guard", topic=topic, error_code=fault.name, cause=message)
        self._lanes.breakers.probe_ended(topic, record.id, now)
        if topic in self._unmarked and self._is_untried(record):
            self._unmarked.discard(topic)
            self._settling.retry(record.id, Retry(fault, message, attempts=0, delay_seconds=0.0))
            self._histories.suspicions.forget(record.id)
            gate_key = self._gate.key_of(record)
            if gate_key is not None:
                self._gate.hold(gate_key, record.id)
        else:
            self._holding.leave(record, HeldState.WANTED, "storm guard", now)

    def _is_untried(self, record: Record) -> bool:
        """Say whether `retry` has no place for the record yet, and may: a replay's row is not in the outbox."""
        history = self._histories.of(record.id)
        return history.dead_letter_id is None and not history.attempts
