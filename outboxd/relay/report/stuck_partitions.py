"""Stuck partitions: which ones of a topic give no answer, so that these are held instead of the whole topic.

    watched (something of the topic is still) ──nothing delivered there for some seconds──▶ held ──a delivery──▶ goes on

A partition is stuck where records have been with the producer for long that would go there, and none that did was
delivered meanwhile: a slow one delivers. Where a record went, only its report says, so that until then it is foretold;
a report from elsewhere shows that the topic has other partitions than was known, and all of it goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from outboxd.policy.faults import own_fault
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import Breakers
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.partitioners import Placement
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.ports import Observer, Publisher, Report
from outboxd.relay.report.thens import GOES_ON, LEFT


class StuckPartitions:
    """Finds, holds and releases them, with the breakers of their topics."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        ledger: Ledger,
        breakers: Breakers,
        holds: PartitionHolds,
        publisher: Publisher,
        observer: Observer,
    ) -> None:
        """All but the last two are the relay's, and are changed here; `publisher` knows how topics are placed."""
        self._gate = gate
        self._ledger = ledger
        self._breakers = breakers
        self._holds = holds
        self._publisher = publisher
        self._observer = observer
        self._moved: dict[str, dict[int, float]] = {}
        """By watched topic and partition: when something was delivered there last."""
        self._ids: dict[str, dict[int | None, set[int]]] = {}
        """By topic and held partition: the records that are with the producer, as of the last look."""

    @property
    def topics(self) -> set[str]:
        """The topics of which a partition is held."""
        return self._holds.topics

    # What is delivered.

    def watch(self, topics: Iterable[str]) -> None:
        """Note from now on where records of these topics, and of no others, are delivered."""
        self._moved = {topic: self._moved.get(topic, {}) for topic in topics}

    @property
    def is_watching(self) -> bool:
        """Whether deliveries are to be told."""
        return bool(self._moved)

    def delivered(self, reports: Sequence[Report], now: float) -> None:
        """These records were delivered: partitions of watched topics move, and those that were held go on."""
        shares: dict[str, list[tuple[Record, int]]] = {}
        for record, _, partition, *_ in reports:
            if record.topic in self._moved and partition is not None:
                shares.setdefault(record.topic, []).append((record, partition))
        for topic, share in shares.items():
            placement = self._placement_of(topic)
            moved = {partition for _, partition in share}
            self._moved[topic].update(dict.fromkeys(moved, now))
            if placement is not None and any(_is_elsewhere(*placed, placement) for placed in share):
                self._publisher.misplaced(topic)
                moved = set(self._holds.held_of(topic))
            self.release(topic, moved & self._holds.held_of(topic), now)

    def moves(self, topic: str, since: float) -> bool:
        """Say whether anything of a watched topic was delivered since then."""
        return any(at > since for at in self._moved.get(topic, {}).values())

    # Finding and holding.

    def find(self, topic: str, long_sent: Sequence[Record], since: float) -> tuple[Placement, set[int]] | None:
        """Return how the topic is placed, and which of its partitions are stuck that are not held; None where there are
        none, or where that cannot be told.

        Args:
            topic: a watched one.
            long_sent: its records that have been with the producer since then or longer.
            since: when a partition that moves has delivered something last.
        """
        placement = self._placement_of(topic)
        if placement is None or topic in self._gate.serial_topics:
            # What goes one record at a time keeps an order across its partitions.
            return None
        moved = {partition for partition, at in self._moved.get(topic, {}).items() if at > since}
        found = (
            {placement.place_of(record.key, record.partition) for record in long_sent}
            - moved
            - self._holds.held_of(topic)
        )
        stuck = {partition for partition in found if partition is not None}
        return (placement, stuck) if stuck else None

    def are_all(self, topic: str, found: tuple[Placement, set[int]]) -> bool:
        """Say whether, with these, all partitions of the topic would be held."""
        placement, partitions = found
        return len(partitions | self._holds.held_of(topic)) >= placement.partitions

    def _placement_of(self, topic: str) -> Placement | None:
        return self._holds.placement_of(topic) or self._publisher.placement(topic)

    def hold(self, topic: str, found: tuple[Placement, set[int]], sent: Sequence[Record], now: float) -> None:
        """Hold these partitions. `sent` are the topic's records that are with the producer: what waits in memory behind
        those in the partitions is dropped, to be read again by its key.
        """
        placement, partitions = found
        self._holds.hold(topic, placement, partitions, now)
        self._note_ids(topic, sent)
        self._gate.defer_behind(topic, set().union(*self._ids[topic].values()))
        self._ledger.forget_dropped(self._gate)
        self._note(topic, now)
        self._observer.event("partitions_held", topic=topic, partitions=_listed(partitions))

    def _note_ids(self, topic: str, sent: Sequence[Record]) -> None:
        """Note the records that are with the producer in held partitions, or where nobody can tell."""
        ids: dict[int | None, set[int]] = {None: set(), **{place: set() for place in self._holds.held_of(topic)}}
        placement = self._holds.placement_of(topic)
        if placement is not None:
            for record in sent:
                place = placement.place_of(record.key, record.partition)
                if place in ids:
                    ids[place].add(record.id)
        self._ids[topic] = ids

    def _note(self, topic: str, now: float) -> None:
        """Let the topic's breaker say which partitions are held."""
        fault = own_fault("IN_FLIGHT_TOO_OLD")
        held = self._holds.held_of(topic)
        message = f"no answer of partition {_listed(held)}; the topic's others go on. {fault.meaning}"
        self._breakers.trip(topic, fault, message, now)
        self._breakers.open[topic].message = message

    # Going on.

    def review(self, topic: str, sent: Sequence[Record], now: float) -> None:
        """Let go the held partitions of which none of the records that are with the producer is, however that came; and
        all of them where the topic has other partitions by now than when they were held.
        """
        present = self._publisher.placement(topic)
        if present is not None and present != self._holds.placement_of(topic):
            self.release_all(topic, now)
            return
        self._note_ids(topic, sent)
        done = {place for place, left in self._ids[topic].items() if place is not None and not left}
        self.release(topic, done, now)

    def release(self, topic: str, partitions: Collection[int], now: float) -> None:
        """These go on."""
        if not partitions:
            return
        self._holds.release(topic, partitions, now)
        ids = self._ids.get(topic, {})
        for partition in partitions:
            ids.pop(partition, None)
        self._observer.event("partitions_released", topic=topic, partitions=_listed(partitions), then=GOES_ON)
        if topic in self._holds:
            self._note(topic, now)
        else:
            self._ids.pop(topic, None)
            self._breakers.close(topic)

    def release_all(self, topic: str, now: float) -> None:
        """Nothing of the topic is held by its partition any more: it is well, or waits as a whole."""
        self.release(topic, self._holds.held_of(topic), now)

    def tell_left(self, topic: str) -> None:
        """The ownership ends, and with it the hold of these partitions."""
        partitions = _listed(self._holds.held_of(topic))
        self._observer.event("partitions_released", topic=topic, partitions=partitions, then=LEFT)

    def stuck_records(self) -> list[Record]:
        """Return the records in memory that are stuck in held partitions, or in ones that nobody can tell."""
        records = self._ledger.records
        places: Iterable[Mapping[int | None, set[int]]] = self._ids.values()
        ids = [record_id for by_place in places for left in by_place.values() for record_id in left]
        return [records[record_id] for record_id in ids if record_id in records]


def _is_elsewhere(record: Record, partition: int, placement: Placement) -> bool:
    """Say whether the record was delivered to another partition than was foretold."""
    return placement.place_of(record.key, record.partition) not in (None, partition)


def _listed(partitions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(partitions)))
