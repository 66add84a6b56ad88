"""Publishing: from what was admitted to the producer, and from its reports to their outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.blame.cause import cause
from outboxd.policy.rows.records import Record, id_of
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.publish.chaining import Chaining
from outboxd.relay.publish.producer_ends import ProducerEnds
from outboxd.relay.state import State

PUBLISH_ROWS_MAX = 2_000
UNCONFIRMED_SHARE = 10
"""At most one part in so many of what may be in memory is in flight for fire-and-forget topics."""


class Publishing:
    """The producer's side of the flow."""

    def __init__(self, state: State, producer_ends: ProducerEnds) -> None:
        """`state` is the relay's memory of this ownership; `producer_ends` are those of all."""
        self._state = state
        self._producer_ends = producer_ends
        self.rebuild_at: float | None = None
        """When the producer that has failed is replaced, None while it works: nothing is published until then."""
        self._holds_seen = 0
        self._unconfirmed: list[Record] = []
        """Fire-and-forget records that the producer was given in this turn."""
        self._chaining = Chaining(state)
        self._offered = 0
        """How many of what is ready, from the first one on, were let go before and the producer did not take yet."""
        self.is_queue_full = False

    def take_back(self, now: float) -> None:
        """Records of a key that came to be held may have been admitted before, where many of a key go at once: they
        leave memory, before the database is asked for the key again.
        """
        state = self._state
        if state.pipelined and state.gate.holds != self._holds_seen:
            state.ready, state.ready_at = state.aftermath.readmit(state.ready[state.ready_at :], now), 0
            self._holds_seen = state.gate.holds

    def publish(self) -> None:
        """Give the producer what may go now, suspects first."""
        state, publisher = self._state, self._state.ports.publisher
        if self.rebuild_at is not None:
            return
        self._publish_suspects()
        if state.draining or not (state.has_ready or state.unconfirmed):
            return
        if state.topics.held or state.lanes.unconfirmed_topics:
            state.ready, state.ready_at = self._reconsider(state.ready[state.ready_at :]), 0
        ready, start = state.ready, state.ready_at
        batch = ready[start : start + PUBLISH_ROWS_MAX] if len(ready) - start > PUBLISH_ROWS_MAX or start else ready
        going, later = self._chaining.publish(batch, state.ports.clock.monotonic())
        if going is not batch:
            state.ready, state.ready_at = going + later + ready[start + len(batch) :], 0
            batch = going
        taken = publisher.publish(batch, 0)
        self.is_queue_full = taken < len(batch)
        state.ready_at += taken
        published = batch if taken == len(batch) else batch[:taken]
        state.lanes.published(published)
        if state.lanes.unconfirmed_topics:
            self._unconfirmed += [record for record in published if record.topic in state.lanes.unconfirmed_topics]
        if state.ready_at >= len(state.ready):
            state.ready, state.ready_at = [], 0
        self._offered = len(state.ready) - state.ready_at

    def _publish_suspects(self) -> None:
        state = self._state
        suspects = state.aftermath.suspects
        while suspects:
            if not self._may_go(suspects[0]):
                self._put_back(suspects.pop(0))
            elif state.ports.publisher.publish_alone(suspects[0]):
                suspect = suspects.pop(0)
                state.lanes.count_in_flight(state.lanes[suspect.topic], 1)
                if suspect.topic in state.lanes.unconfirmed_topics:
                    self._unconfirmed.append(suspect)
            else:
                return

    def _may_go(self, record: Record) -> bool:
        """Say whether the record's topic goes, or waits behind a breaker only and this is its probe."""
        reasons = self._state.topics.held.get(record.topic)
        return not reasons or (
            reasons == {HoldReason.BREAKER} and self._state.lanes.breakers.is_probe(record.topic, record.id)
        )

    def _reconsider(self, records: list[Record]) -> list[Record]:
        """A breaker or a pause may have come since these were admitted; and what nobody confirms has its own bound."""
        state = self._state
        going: list[Record] = []
        waiting: list[Record] = []
        unconfirmed_room = max(1, state.limits.max_in_flight_rows // UNCONFIRMED_SHARE) - sum(
            state.lanes[topic].in_flight for topic in state.lanes.unconfirmed_topics
        )
        # What was offered and not taken goes first, so that the same is offered again: a publisher that prepares for
        # what it does not take yet would else prepare for others each time.
        for record in records[: self._offered] + state.unconfirmed + records[self._offered :]:
            topic = record.topic
            if not self._may_go(record):
                self._put_back(record)
            elif topic in state.lanes.unconfirmed_topics:
                # A probe waits for room too.
                (going if unconfirmed_room > 0 else waiting).append(record)
                unconfirmed_room -= 1
            else:
                going.append(record)
        state.unconfirmed = waiting
        return going

    def _put_back(self, record: Record) -> None:
        """The record was admitted and may not go after all: its key waits for it."""
        state = self._state
        now = state.ports.clock.monotonic()
        state.lanes.breakers.probe_ended(record.topic, record.id, now)
        state.aftermath.holding.leave(record, HeldState.WANTED, "topic held", now)

    def report(self, now: float) -> None:
        """Take the delivery reports that came by the last rest; replace the producer where it failed."""
        state, publisher = self._state, self._state.ports.publisher
        questioned = publisher.questioned() if self._unconfirmed else ()
        reports = publisher.take_reports()
        if self._unconfirmed:
            given, self._unconfirmed = self._unconfirmed, []
            state.ready += state.aftermath.deliveries.unconfirmed(given, reports, now, questioned)
        if reports or state.aftermath.undecided:
            self._go_next(state.aftermath.take(reports, now))
        state.ready += self._chaining.look(now)
        transaction = publisher.committed()
        if transaction is not None:
            state.settling.mark(transaction)
            state.settling.refusals.restated(*publisher.restated())
        if not state.pipelined and (publisher.failure() is not None or state.aftermath.unknown):
            self._consider_rebuild(now)

    def _go_next(self, following: Sequence[Record]) -> None:
        """Put what the reports let go behind what waits; what a transaction gave back is older than that."""
        state = self._state
        if state.pipelined and following and state.has_ready:
            state.ready, state.ready_at = sorted(state.ready[state.ready_at :] + list(following), key=id_of), 0
        else:
            state.ready += following

    def _consider_rebuild(self, now: float) -> None:
        """The producer failed. Whoever drains sends nothing more, and waits for no pause."""
        if self.rebuild_at is None:
            self._producer_ends.ended(now)
            self.rebuild_at = self._producer_ends.next_from
        if now >= self.rebuild_at or self._state.draining:
            self.rebuild_at = None
            self._rebuild()

    def _rebuild(self) -> None:
        """The producer failed: what was in flight has an unknown outcome and goes again, in order, by a new one."""
        state = self._state
        failure = state.ports.publisher.failure()
        code, told = "NEVER_REPORTED", "the producer gave records back without an outcome"
        if failure is not None:
            code, told = failure.fault.name, cause(failure.fault, failure.text)
        elif state.aftermath.unknown:
            first = state.aftermath.unknown[0]
            code, told = first.fault.name, first.message
        self._chaining.cut()
        unsettled = state.with_producer()
        state.aftermath.unknown = []
        state.aftermath.deliveries.forget_refused()
        state.ports.publisher.rebuild()
        state.lanes.nothing_in_flight()
        for topic in state.lanes.unconfirmed_topics:
            # A fire-and-forget probe is settled already, so it does not go again, and its report never comes.
            breaker = state.lanes.breakers.open.get(topic)
            if breaker is not None and breaker.probing_id is not None:
                state.lanes.breakers.probe_ended(topic, breaker.probing_id, state.ports.clock.monotonic())
        state.ready = sorted(unsettled + state.ready[state.ready_at :], key=lambda record: record.id)
        state.ready_at = 0
        state.in_doubt.update(map(id_of, unsettled))
        state.ports.observer.duplicates_possible(len(unsettled))
        state.ports.observer.event(
            "producer_rebuilt",
            error_code=code,
            cause=told,
            unknown_rows=len(unsettled),
        )
