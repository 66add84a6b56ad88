"""Partition holds: partitions of topics that are stuck while the others of their topics go. Pure state; no clock.

A partition is *held* once what the client has for it got no answer for too long. Records that would go there are
dropped, and their topic is remembered as *deferred from id X*, apart from what `topic_holds` keeps, since all else of
the topic goes on meanwhile. When the partition answers it is released, and its topic is read again from X, as after a
hold of the whole topic: so what came to it meanwhile goes in id order, before what is new.

Where a record would go is foretold from its key. One whose partition nobody can tell waits with them, since it might
get stuck there too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable

from outboxd.policy.partitioners import Placement
from outboxd.policy.records import Record
from outboxd.policy.topic_holds import TopicHolds


class PartitionHolds:
    """Holds one entry a topic of which a partition is held."""

    def __init__(self, topics: TopicHolds, placement: Callable[[str], Placement | None]) -> None:
        """`topics` is told what is to be read again; `placement` tells how a topic's records are placed, if it is
        known.
        """
        self._topics = topics
        self._placement = placement
        self.held: dict[str, frozenset[int]] = {}
        """The held partitions, by topic."""
        self.deferred: dict[str, int] = {}
        """The topics of which records were dropped, each with the lowest id of these."""

    def partition_of(self, record: Record) -> int | None:
        """Return the partition that the record goes to; None where that is not known."""
        return self._partition_of(record.topic, record.key) if record.partition is None else record.partition

    def _partition_of(self, topic: str, key: str | None) -> int | None:
        placement = self._placement(topic)
        return None if placement is None else placement.partition_of(key)

    def are_all(self, topic: str, partitions: Collection[int]) -> bool:
        """Say whether, with these, all partitions of the topic would be held."""
        placement = self._placement(topic)
        return placement is None or len(self.held.get(topic, frozenset()).union(partitions)) >= placement.partitions

    def hold(self, topic: str, partitions: Collection[int]) -> None:
        """Hold these partitions too."""
        self.held[topic] = self.held.get(topic, frozenset()).union(partitions)

    def release(self, topic: str, partitions: Collection[int]) -> None:
        """These partitions go on. What was dropped is read again: what is of one that is still held is dropped anew."""
        left = self.held.get(topic, frozenset()).difference(partitions)
        if left:
            self.held[topic] = left
        else:
            self.held.pop(topic, None)
        from_id = self.deferred.pop(topic, None)
        if from_id is not None:
            self._topics.defer(topic, from_id)

    def waits(self, topic: str, key: str | None, record_id: int) -> bool:
        """Say whether a record has to wait for its partition: an earlier one of its key may have been dropped."""
        partitions = self.held.get(topic)
        if not partitions or record_id < self.deferred.get(topic, record_id + 1):
            return False
        return _is_held(self._partition_of(topic, key), partitions)

    def split(self, records: Iterable[Record], kept: Container[int]) -> tuple[list[Record], list[Record]]:
        """Divide records into those that go and those that are dropped here, to be read again.

        `kept` are the ids of failed records, which others remember: they need no deferral, and go where nothing
        earlier of the partition was dropped.
        """
        passed: list[Record] = []
        dropped: list[Record] = []
        for record in records:
            topic = record.topic
            partitions = self.held.get(topic)
            if partitions is None or not _is_held(self.partition_of(record), partitions):
                passed.append(record)
            elif record.id not in kept:
                self.deferred[topic] = min(record.id, self.deferred.get(topic, record.id))
                dropped.append(record)
            elif record.id < self.deferred.get(topic, record.id + 1):
                passed.append(record)
            else:
                dropped.append(record)
        return passed, dropped

    def touches(self, topics: Iterable[str]) -> bool:
        """Say whether any of these topics has a held partition, so that `split` has something to do."""
        return bool(self.held) and any(topic in self.held for topic in topics)


def _is_held(partition: int | None, held: Collection[int]) -> bool:
    return partition is None or partition in held
