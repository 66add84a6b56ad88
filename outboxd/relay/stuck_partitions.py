"""Stuck partitions: which ones of a topic give no answer, so that these are held instead of the whole topic.

What shows it are the keyed records that the producer has had for long: the client would say where each goes only with
its report, so that is foretold. While partitions are held, their records in memory are remembered by id: once none of
these is left, or one that goes there is delivered, the partition goes on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from outboxd.policy.key_gate import KeyGate
from outboxd.policy.partition_holds import PartitionHolds
from outboxd.policy.records import Record
from outboxd.relay.ledger import Ledger


class StuckPartitions:
    """Finds, holds and releases them."""

    def __init__(self, *, gate: KeyGate, ledger: Ledger, holds: PartitionHolds) -> None:
        """All of these are the relay's; `holds` and what waits in the gate are changed here."""
        self._gate = gate
        self._ledger = ledger
        self._holds = holds
        self._ids: dict[str, dict[int, set[int]]] = {}
        """By topic and held partition: the records that were with the producer when it was held."""

    def topics(self) -> list[str]:
        """Return the topics of which a partition is held."""
        return list(self._holds.held)

    def held_of(self, topic: str) -> frozenset[int]:
        """Return the held partitions of the topic."""
        return self._holds.held.get(topic, frozenset())

    def holds_any_of(self, topic: str) -> bool:
        """Say whether a partition of the topic is held."""
        return topic in self._holds.held

    def find(self, topic: str, long_sent: Container[int]) -> set[int]:
        """Return the partitions of the topic, not held yet, in which records are stuck: those of `long_sent`."""
        known = set().union(*self._ids.get(topic, {}).values())
        stuck = [each for each in self._gate.busy_records(topic) if each.id in long_sent and each.id not in known]
        found = {self._holds.partition_of(record) for record in stuck} - self.held_of(topic)
        return {partition for partition in found if partition is not None}

    def are_all(self, topic: str, partitions: set[int]) -> bool:
        """Say whether, with these, all partitions of the topic would be held."""
        return self._holds.are_all(topic, partitions)

    def hold(self, topic: str, partitions: set[int]) -> None:
        """Hold these. What waits in memory behind records that they have is dropped, to be read again by its key."""
        self._holds.hold(topic, partitions)
        ids_by_partition = self._ids.setdefault(topic, {})
        for record in self._gate.busy_records(topic):
            partition = self._holds.partition_of(record)
            if partition in partitions:
                ids_by_partition.setdefault(partition, set()).add(record.id)
        self._gate.defer_behind(topic, set().union(*(ids_by_partition.get(each, set()) for each in partitions)))

    def delivered(self, topic: str, partitions: Container[int | None]) -> None:
        """Records of these partitions were delivered: those that were held go on."""
        self.release(topic, [partition for partition in self.held_of(topic) if partition in partitions])

    def release_done(self, topic: str) -> None:
        """Release the partitions of which no record is in memory any more, however that came."""
        for partition, ids in list(self._ids.get(topic, {}).items()):
            ids.intersection_update(self._ledger.records)
            if not ids:
                self.release(topic, [partition])

    def release(self, topic: str, partitions: Sequence[int]) -> None:
        """These go on."""
        if not partitions:
            return
        self._holds.release(topic, partitions)
        ids_by_partition = self._ids.get(topic, {})
        for partition in partitions:
            ids_by_partition.pop(partition, None)
        if not ids_by_partition:
            self._ids.pop(topic, None)

    def release_all(self, topic: str) -> None:
        """Nothing of the topic is held by its partition any more: it is well, or waits as a whole."""
        self.release(topic, list(self.held_of(topic)))

    def records_of(self, topic: str) -> list[Record]:
        """Return the records in memory that are stuck in held partitions of the topic."""
        records = self._ledger.records
        ids = set().union(*self._ids.get(topic, {}).values())
        return [records[record_id] for record_id in ids if record_id in records]
