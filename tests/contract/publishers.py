"""The Publisher port on a real Kafka and on the simulation's broker, with the same handles for tests."""

from __future__ import annotations

import random
import time
import uuid
from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, cast

from outboxd.kafka.cluster.topic_limits import NO_LIMITS
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Arm, Record
from outboxd.relay.ports import Publisher
from tests.simulation.broker import Broker
from tests.simulation.client import SimulatedPublisher
from tests.simulation.database import Kind, Row
from tests.simulation.timeline import Timeline
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name

REPORTS_SECONDS_MAX = 20.0
TOPIC_BYTES_MAX = 50_000


class PublisherBench(ABC):
    """A publisher, one topic of one partition, and its log."""

    publisher: Publisher
    topic: str

    def __init__(self) -> None:
        self._last_id = 0

    def record(self, key: str | None = "k", kind: Kind = Kind.GOOD) -> Record:
        """A record that is fine, too large for the topic (POISON), or refused by the client itself (REFUSED)."""
        self._last_id += 1
        payload = b"x" * (TOPIC_BYTES_MAX * 2 if kind is Kind.POISON else 10)
        headers = '{"number": 1}' if kind is Kind.REFUSED else "{}"
        event_id = str(uuid.UUID(int=self._last_id))
        made = self._make(
            Arm.FORWARD,
            self._last_id,
            event_id,
            self.topic,
            key,
            payload,
            headers,
            None,
            1_700_000_000_000,
            len(payload),
        )
        self._note(made, kind)
        return made

    def reports(self, count: int) -> list[Report]:
        """Poll until so many reports came."""
        found: list[Report] = []
        deadline = time.monotonic() + REPORTS_SECONDS_MAX
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} reports of {count}"
            self._serve()
            found += self.publisher.take_reports()
        return found

    def publish_chain(self, records: list[Record]) -> int:
        """Send them together, once the producer of chains is ready for any; return how many were taken."""
        deadline = time.monotonic() + REPORTS_SECONDS_MAX
        while not (taken := self.publisher.publish_chain(records)):
            assert time.monotonic() < deadline
            self._serve()
        return taken

    def serve(self) -> list[Report]:
        """Let a little time pass; return the reports that came."""
        self._serve()
        return self.publisher.take_reports()

    @abstractmethod
    def forget_limits(self) -> None:
        """What the topic refuses is not known, so that nothing is sent alone for that."""

    def _make(self, *fields: Any) -> Record:
        return Record(*fields)

    @abstractmethod
    def _note(self, record: Record, kind: Kind) -> None:
        """Tell the other side what is wrong with the record, where it does not see it by itself."""

    @abstractmethod
    def _serve(self) -> None:
        """Let a little time pass."""

    @abstractmethod
    def log(self) -> list[int]:
        """The ids in the partition's log, in its order."""

    @abstractmethod
    def close(self) -> None: ...


class KafkaBench(PublisherBench):
    """The real one."""

    def __init__(self, kafka: KafkaCluster) -> None:
        super().__init__()
        self._kafka = kafka
        self.topic = kafka.create_topic(
            fresh_name("contract"), partitions=1, config={"max.message.bytes": str(TOPIC_BYTES_MAX)}
        )
        self._publisher = KafkaPublisher(
            {"bootstrap.servers": kafka.bootstrap, "linger.ms": "100"},
            source="default",
            in_flight_rows_max=1_000,
            in_flight_bytes_max=10_000_000,
        )
        self.publisher = self._publisher

    def _make(self, *fields: Any) -> Record:
        return self._publisher.inbox.record_type(*fields)

    def _note(self, record: Record, kind: Kind) -> None:
        """The broker sees it."""

    def forget_limits(self) -> None:
        self._publisher.topics.of = lambda _: NO_LIMITS  # type: ignore[method-assign,assignment]  # as of an old broker

    def _serve(self) -> None:
        self.publisher.poll(0.01)

    def log(self) -> list[int]:
        return [int(dict(record.headers)["outbox-id"] or 0) for record in self._kafka.consume(self.topic)]

    def close(self) -> None:
        self._publisher.close()


class SimulatedBench(PublisherBench):
    """The simulation's, without faults and without a relay."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = "contract"
        self._timeline = Timeline()
        self._rows: dict[str, Row] = {}
        self._broker = Broker(self._timeline, random.Random(1), [self.topic], 1, lambda *_: None)
        world = SimpleNamespace(
            invariants=SimpleNamespace(before_publish=lambda *_: None),
            row=self._rows.__getitem__,
            scenario=SimpleNamespace(adds_partitions=False),
        )
        daemon = SimpleNamespace(
            world=world,
            frozen_until=0.0,
            wake_soon=lambda: None,
            note_delivered=lambda _: None,
            at_step=lambda *_: None,
            rest_in_poll=lambda **_: self._timeline.step(),
        )
        self.publisher = SimulatedPublisher(
            cast(Any, daemon), self._broker, random.Random(2), queue_rows_max=1_000, batch_rows=100
        )

    def _note(self, record: Record, kind: Kind) -> None:
        self._rows[record.event_id] = Row(
            record.id, record.topic, record.key, record.size_bytes, kind, 0.0, event_id=record.event_id
        )

    def _serve(self) -> None:
        self.publisher.poll(1.0)

    def log(self) -> list[int]:
        while self._timeline.step():
            pass
        return [self._rows[event_id].id for event_id in self._broker.topics[self.topic].logs[0]]

    def forget_limits(self) -> None:
        """It knows none."""

    def close(self) -> None:
        """Nothing is open."""
