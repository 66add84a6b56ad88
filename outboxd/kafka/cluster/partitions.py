"""Does the topic have the partition that a row names? Only fresh metadata of the topic can tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from outboxd.kafka.client.lots import Lots
from outboxd.kafka.client.producer_maker import AnyProducer
from outboxd.kafka.messages import TOPICS_REMEMBERED_MAX
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.rows.records import Record

METADATA_SECONDS = 10.0
_PARTITION_CODES = (KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART)
"""What the client says of a partition that is not there, and of a topic that is not (yet) there."""


class MostPartitions:
    """How many partitions each topic was seen to have at most, while this daemon runs: one that is made anew with fewer
    is not unchanged, and a row that names a lost one is not to blame. May be used on any thread.
    """

    def __init__(self) -> None:
        """None was seen yet."""
        self._most: dict[str, int] = {}

    def note(self, topic: str, count: int) -> None:
        """The topic has so many now."""
        if count > self._most.get(topic, 0):
            if len(self._most) >= TOPICS_REMEMBERED_MAX:
                self._most.clear()
            self._most[topic] = count

    def fault_of(self, record: Record, count: int | None) -> DeliveryFault | None:
        """Note how many partitions the record's topic has now, and return what that means: its own fault where it never
        had the one that the record names, the topic's where it had; None where it has it, or where that is not known.
        """
        if count is None:
            return None
        self.note(record.topic, count)
        if record.partition is None or record.partition < count:
            return None
        text = f"the topic has partitions 0 to {count - 1}, the row names {record.partition}"
        most = self._most.get(record.topic, 0)
        if record.partition < most:
            return DeliveryFault(
                fault_of(KafkaError._UNKNOWN_PARTITION), f"{text}, and it had {most}: it was made anew with fewer"
            )
        return DeliveryFault(own_fault("UNKNOWN_PARTITION"), text)


def partition_fault(producer: AnyProducer, record: Record, most: MostPartitions) -> DeliveryFault | None:
    """Return the fault of the record, or of its topic, when that is there and lacks the record's partition; None when
    that is not proved.

    Blocks for up to `METADATA_SECONDS`.
    """
    return most.fault_of(record, partition_count(producer, record.topic))


def partition_count(producer: AnyProducer, topic: str) -> int | None:
    """Return how many partitions the topic has; None where that is not known. Blocks for up to `METADATA_SECONDS`."""
    try:
        return count_partitions(producer, topic, METADATA_SECONDS)
    except KafkaException:
        return None  # No answer is no proof: the fault stays the topic's.


def count_partitions(client: AnyProducer | AdminClient | Consumer, topic: str, timeout_seconds: float) -> int | None:
    """Return how many partitions the topic has; None where the cluster does not tell.

    Raises:
        KafkaException: no broker answered within `timeout_seconds`.
    """
    metadata = client.list_topics(topic, timeout=timeout_seconds).topics.get(topic)
    return None if metadata is None or metadata.error is not None else len(metadata.partitions)


class Question(NamedTuple):
    """A record that failed with `fault`, and the producer that sent it: the one of that generation."""

    producer: AnyProducer
    record: Record
    fault: DeliveryFault | None
    generation: int
    failed_at: float


class PartitionQuestions:
    """Has the cluster asked on a thread of its own, once for all records of a topic that wait for the answer."""

    def __init__(self, report: Callable[[Report], object], most: MostPartitions) -> None:
        """`report` takes each record's report, on that thread: its own fault, or else what it failed with."""
        self._report = report
        self._most = most
        # A record waits for its report; and no further thread is needed to ask, for a few seconds at most.
        self._lots: Lots[Question] = Lots("partitions", self._ask_all, may_wait=False)
        self._generation = 0
        self._open_ids: set[int] = set()
        self._lock = threading.Lock()

    def ask(self, producer: AnyProducer, record: Record, fault: DeliveryFault | None) -> None:
        """The record failed with this; is it because its topic lacks the partition that it names?"""
        with self._lock:
            self._open_ids.add(record.id)
        self._lots.add([Question(producer, record, fault, self._generation, time.monotonic())])

    def asks(self, producer: AnyProducer, record: Record, fault: DeliveryFault) -> bool:
        """The client refused the record with this: ask where that leaves it open whose fault it is, and say so."""
        if not is_doubtful(record, fault):
            return False
        self.ask(producer, record, fault)
        return True

    def ask_of(self, producer: AnyProducer, reports: Iterable[Report]) -> list[Report]:
        """Ask about those reports that leave it open; return the others."""
        sure: list[Report] = []
        for report in reports:
            error = report[1]
            if error is not None and not report.alone and is_doubtful(report.record, error):
                self.ask(producer, report.record, error)
            else:
                sure.append(report)
        return sure

    def open_ids(self) -> set[int]:
        """Return the ids of the records whose reports still wait for an answer."""
        with self._lock:
            return self._open_ids.copy()

    def forget(self) -> None:
        """Report nothing of what was asked until now: its producer is gone, and its records go by another one."""
        with self._lock:
            self._generation += 1
            self._open_ids.clear()

    def _ask_all(self, questions: list[Question]) -> None:
        by_topic: dict[str, list[Question]] = {}
        for question in questions:
            if question.generation == self._generation:
                by_topic.setdefault(question.record.topic, []).append(question)
        for topic, asked in by_topic.items():
            self._answer(asked, partition_count(asked[-1].producer, topic))

    def _answer(self, questions: list[Question], count: int | None) -> None:
        with self._lock:
            # After `forget` no report comes any more, so it is held back meanwhile.
            for _, record, fault, generation, failed_at in questions:
                if generation == self._generation:
                    self._open_ids.discard(record.id)
                    verdict = self._most.fault_of(record, count) or fault
                    error = None if verdict is None else replace(verdict, failed_at=failed_at)
                    self._report(Report(record, error, record.partition, None, True))


def is_doubtful(record: Record, fault: DeliveryFault) -> bool:
    """Does the topic really lack the partition that the record names? Then it is the record's fault, else the
    topic's.
    """
    return record.partition is not None and fault.fault.code in _PARTITION_CODES
