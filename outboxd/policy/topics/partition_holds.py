"""Partition holds: partitions of topics that are stuck while the others of their topics go. Pure state.

A partition is *held* once what the client has for it got no answer for too long. Records that would go there are
dropped, and their topic is remembered as *deferred from id X* for that partition, apart from what `topic_holds` keeps,
since all else of the topic goes on meanwhile. When the partition answers it is released, and its topic is read again
from X, as after a hold of the whole topic: so what came to it meanwhile goes in id order, before what is new.

Where a record would go is foretold from its key, by the placement that was known when the hold began: another one would
let a key go whose earlier records were dropped. A record whose partition nobody can tell waits for the last of them,
since it might get stuck there too.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement
from outboxd.policy.topics.topic_holds import TopicHolds


@dataclass(slots=True)
class _Hold:
    """Of one topic. `deferred` is the lowest id that was dropped, by partition; None for records of any."""

    placement: Placement
    partitions: set[int] = field(default_factory=set)
    deferred: dict[int | None, int] = field(default_factory=dict)

    def holds(self, partition: int | None) -> bool:
        return partition is None or partition in self.partitions


class PartitionHolds:
    """Holds one entry a topic of which a partition is held."""

    def __init__(self, topics: TopicHolds) -> None:
        """`topics` is told what is to be read again, and whose own time stands still."""
        self._topics = topics
        self._holds: dict[str, _Hold] = {}

    def __contains__(self, topic: object) -> bool:
        """Say whether a partition of the topic is held."""
        return topic in self._holds

    @property
    def topics(self) -> set[str]:
        """The topics of which a partition is held."""
        return set(self._holds)

    @property
    def deferred(self) -> dict[str, int]:
        """The topics of which records were dropped, each with the lowest id of these."""
        return {topic: min(hold.deferred.values()) for topic, hold in self._holds.items() if hold.deferred}

    def held_of(self, topic: str) -> frozenset[int]:
        """Return the held partitions of the topic."""
        hold = self._holds.get(topic)
        return frozenset() if hold is None else frozenset(hold.partitions)

    def placement_of(self, topic: str) -> Placement | None:
        """Return the placement by which partitions of the topic are held; None where none is."""
        hold = self._holds.get(topic)
        return None if hold is None else hold.placement

    def hold(self, topic: str, placement: Placement, partitions: Collection[int], now: float) -> None:
        """Hold these partitions too; `placement` counts for a topic of which none was held."""
        hold = self._holds.get(topic)
        if hold is None:
            hold = self._holds[topic] = _Hold(placement)
            self._topics.stop_time(topic, now)
        hold.partitions.update(partitions)

    def release(self, topic: str, partitions: Collection[int], now: float) -> None:
        """These partitions go on, and what was dropped of them is read again."""
        hold = self._holds.get(topic)
        if hold is None:
            return
        hold.partitions.difference_update(partitions)
        done: set[int | None] = set(partitions)
        if not hold.partitions:
            del self._holds[topic]
            self._topics.go_on_with_time(topic, now)
            done = set(hold.deferred)
        from_ids = [hold.deferred.pop(partition) for partition in done & hold.deferred.keys()]
        if from_ids:
            self._topics.defer(topic, min(from_ids))

    def waits(self, topic: str, key: str | None, partition: int | None, record_id: int) -> bool:
        """Say whether a record has to wait for its partition: an earlier one of its key may have been dropped."""
        hold = self._holds.get(topic)
        if hold is None:
            return False
        place = hold.placement.place_of(key, partition)
        return place in hold.partitions and record_id > hold.deferred.get(place, record_id)

    def split(self, records: Iterable[Record], kept: Container[int]) -> tuple[list[Record], list[Record]]:
        """Divide records into those that go and those that are dropped here, to be read again.

        `kept` are the ids of failed records, which others remember: they need no deferral, and go where nothing
        earlier of their keys can have been dropped.
        """
        passed: list[Record] = []
        dropped: list[Record] = []
        for record in records:
            hold = self._holds.get(record.topic)
            place = None if hold is None else hold.placement.place_of(record.key, record.partition)
            if hold is None or not hold.holds(place):
                passed.append(record)
                continue
            if record.id in kept and not self.waits(record.topic, record.key, record.partition, record.id):
                passed.append(record)
                continue
            if record.id not in kept:
                hold.deferred[place] = min(record.id, hold.deferred.get(place, record.id))
            dropped.append(record)
        return passed, dropped

    def touches(self, topics: Iterable[str]) -> bool:
        """Say whether any of these topics has a held partition, so that `split` has something to do."""
        return bool(self._holds) and any(topic in self._holds for topic in topics)
