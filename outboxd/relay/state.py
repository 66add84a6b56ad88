"""What the relay keeps in memory while it owns the outbox.

All of it is the loop's own. It is made anew at each acquisition of the lease: nothing that was true before is
trusted then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outboxd.policy.blame.routes import Route
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.admit.admission import Admission
from outboxd.relay.admit.probing import Probing
from outboxd.relay.admit.wishes import Wishes
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.memory.settling import Settling
from outboxd.relay.ports import (
    Clock,
    Dice,
    FetchRequest,
    Lease,
    Mailbox,
    Observer,
    OutboxStore,
    Publisher,
    SweepRequest,
)
from outboxd.relay.report.aftermath import Aftermath
from outboxd.relay.report.stuck_partitions import StuckPartitions

__all__ = ["Ports", "RelayLimits", "State"]

TRANSACTIONS_WAITING = 16
"""Where so many wait for being settled, twice as many keep the next from beginning."""
NOTHING_GOES_SECONDS = 2.0
"""Longer than a transaction takes by far."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the relay works with."""

    store: OutboxStore
    publisher: Publisher
    lease: Lease
    mailbox: Mailbox
    clock: Clock
    dice: Dice
    observer: Observer


def settlement_rows_max(limits: RelayLimits) -> int:
    """Return how many rows one settlement may have."""
    return max(limits.batch_rows, 1_000)


class State:
    """One ownership's memory. The parts of the relay share it and change it, on the relay's thread."""

    def __init__(
        self,
        ports: Ports,
        limits: RelayLimits,
        routes: Sequence[Route],
        default_route: Route,
        *,
        token: int | None = None,
        pipelined: bool = False,
        draining: bool = False,
        in_doubt: Iterable[int] = (),
    ) -> None:
        """`token` is the lease's, None while another daemon owns the outbox; `draining` reads nothing new; `in_doubt`
        are the rows that the memory before left in doubt under the same lease.
        """
        self.ports = ports
        self.limits = limits
        self.token = token
        self.draining = draining
        self.pipelined = pipelined
        self.gate = KeyGate(pipelined=pipelined)
        self.topics = TopicHolds()
        self.partitions = PartitionHolds(self.topics)
        self.ledger = Ledger(limits.max_in_flight_rows, limits.max_in_flight_bytes, row_bytes=limits.row_bytes)
        self.held = HeldRecords(self.gate)
        self.lanes = Lanes(routes, default_route, self.topics, self.gate, clock=ports.clock)
        self.settling = Settling(settlement_rows_max(limits))
        self.probing = Probing(
            breakers=self.lanes.breakers, topics=self.topics, gate=self.gate, held=self.held, ledger=self.ledger
        )
        self.wishes = Wishes(
            self.gate,
            self.topics,
            self.held,
            self.probing,
            self.ledger,
            partitions=self.partitions,
            reach_ids_min=limits.reach_ids_min,
        )
        self.admission = Admission(
            gate=self.gate,
            topics=self.topics,
            partitions=self.partitions,
            held=self.held,
            ledger=self.ledger,
            lanes=self.lanes,
            probing=self.probing,
            wishes=self.wishes,
        )
        self.stuck = StuckPartitions(
            gate=self.gate,
            ledger=self.ledger,
            breakers=self.lanes.breakers,
            holds=self.partitions,
            publisher=ports.publisher,
            observer=ports.observer,
        )
        self.aftermath = Aftermath(
            gate=self.gate,
            topics=self.topics,
            held=self.held,
            ledger=self.ledger,
            lanes=self.lanes,
            settling=self.settling,
            stuck=self.stuck,
            observer=ports.observer,
            dice=ports.dice,
        )
        self.reading: FetchRequest | SweepRequest | str | None = None
        self.ready: list[Record] = []
        self.ready_at = 0
        self.unconfirmed: list[Record] = []
        self.in_doubt = set(in_doubt)
        """The rows whose records may be in Kafka though no report said so: the producer that had them is gone, or
        memory began anew. They go again; until that is settled the outbox is not drained.
        """
        self.read_before_loss: set[int] = set()
        """The rows in memory that were read before a connection was lost: the server may have crashed, and other rows
        have these ids by now.
        """
        self.wants_reload = False
        """Whether what is held was changed behind the relay's back, so that only the database knows it."""
        self.is_crowded = False
        """Whether too little room is left to read more: what is in memory has to leave it first."""

    def reconfigure(self, limits: RelayLimits, routes: Sequence[Route], default_route: Route) -> None:
        """Live within other limits and by other routes from now on; what is in memory already stays."""
        self.limits = limits
        self.ledger.rows_max, self.ledger.bytes_max = limits.max_in_flight_rows, limits.max_in_flight_bytes
        self.settling.rows_max = settlement_rows_max(limits)
        self.lanes.reroute(routes, default_route)

    def waits_for_refused(self, now: float) -> bool:
        """Say whether all else waits for what PostgreSQL refuses to settle: memory is full of it, or as many
        transactions wait for it as may, so that for a while none was delivered.
        """
        # With the one that is tried again just now: a try that waits for a lock takes its time.
        refused = self.settling.refusals.refused_rows
        if refused and self.in_flight and self.settling.transactions >= TRANSACTIONS_WAITING:
            return now - self.lanes.last_delivered_at >= NOTHING_GOES_SECONDS
        return self.is_crowded and 2 * refused > len(self.ledger)

    @property
    def has_ready(self) -> bool:
        """Whether admitted records wait for the producer."""
        return self.ready_at < len(self.ready)

    @property
    def in_flight(self) -> bool:
        """Whether the producer owes reports."""
        return self.lanes.rows_in_flight > 0

    @property
    def is_idle(self) -> bool:
        """Nothing is in memory, may be read again, or is being settled."""
        return (
            not len(self.ledger)
            and self.settling.is_empty
            and not self.wishes.has_open
            and not self.aftermath.undecided
        )

    @property
    def is_settled(self) -> bool:
        """Every report came and is settled."""
        return not self.in_flight and not self.aftermath.undecided and self.settling.is_empty

    @property
    def is_drained(self) -> bool:
        """Every report came and is settled, and no answer of the database is waited for."""
        return self.is_settled and self.reading is None

    @property
    def is_drained_but_for_refused(self) -> bool:
        """The same, but for what PostgreSQL refuses to settle again and again: nothing tells when that ends."""
        settling = self.settling
        is_settled = not self.in_flight and not self.aftermath.undecided and settling.is_written
        return is_settled and self.reading is None and settling.refusals.are_stuck

    @property
    def is_drained_but_for_tries(self) -> bool:
        """The same, but for records of topics that are on hold, or missing: one of a missing topic is with the client
        for half a minute, and was never sent.
        """
        settling = self.settling
        is_written = settling.is_empty or (settling.is_written and settling.refusals.are_stuck)
        tries = sum(lane.in_flight for lane in self.lanes.topics() if lane.in_flight and self._is_tried(lane.topic))
        is_all = 0 < self.lanes.rows_in_flight == tries and not self.aftermath.undecided
        return is_all and is_written and self.reading is None

    def _is_tried(self, topic: str) -> bool:
        breaker = self.lanes.breakers.open.get(topic)
        # What a breaker that opened on age waits for may have been sent, and be answered yet.
        is_on_hold = breaker is not None and not breaker.is_watched
        return is_on_hold or self.ports.publisher.is_missing(topic)

    @property
    def leaves_no_doubt(self) -> bool:
        """No record that was tried, or that one before may have tried, is unsettled; dead letters may wait."""
        waits = self.topics.held or self.topics.deferred or self.partitions.deferred or self.gate.deferred_keys
        return self.is_settled and not (waits or self.in_doubt or self.aftermath.suspects or self._held_ids())

    def _held_ids(self) -> set[int]:
        """Return the rows of the outbox that wait for their turn once more: most were tried and failed."""
        return {each.id for each in self.held.by_id.values() if not each.is_replay}

    def left_in_doubt(self) -> set[int]:
        """Return the rows that are in doubt once this memory is given up. What the producer has not taken was dropped
        from it before.
        """
        return self.in_doubt | self.ledger.records.keys() | self._held_ids()

    def with_producer(self) -> list[Record]:
        """Return the records that the producer took and did not report, and those that it gave back as unknown."""
        elsewhere = self.gate.waiting_ids() | self.settling.known_ids()
        elsewhere.update(record.id for record in self.ready[self.ready_at :])
        elsewhere.update(record.id for record in self.unconfirmed)
        elsewhere.update(failure.report.record.id for failure in self.aftermath.undecided)
        elsewhere.update(record.id for record in self.aftermath.suspects)
        return [record for record in self.ledger.records.values() if record.id not in elsewhere]

    def connection_lost(self) -> None:
        """What is in memory may be gone from the database, and be others' there."""
        self.read_before_loss.update(self.ledger.records)

    def drop_unpublished(self) -> None:
        """Drop what the producer has not taken: it stays pending in the database."""
        self.ledger.leave([record.id for record in self.ready[self.ready_at :] + self.unconfirmed])
        self.ledger.leave(self.gate.waiting_ids())
        self.ready, self.ready_at, self.unconfirmed = [], 0, []
