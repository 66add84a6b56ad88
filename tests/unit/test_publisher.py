"""The publisher around its producers: what these raise is their failure, never the daemon's end; and one that another
replaces leaves nothing behind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from outboxd.kafka.client import producer_maker
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Arm, Record


class FailingProducer:
    """Fails as the real one does where a fatal error comes while a report is served."""

    def __init__(self, config: dict[str, Any]) -> None:
        del config

    def poll(self, timeout_seconds: float) -> int:
        del timeout_seconds
        raise SystemError("<method 'get' of 'dict' objects> returned a result with an exception set")

    def purge(self, **_: object) -> None:
        """Drop nothing."""

    flush = poll

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("call", ["poll", "flush"])
def test_a_report_that_a_fatal_error_swallows_is_a_failure_of_the_producer(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.kafka.client.producer_maker.Producer", FailingProducer)
    publisher = KafkaPublisher({}, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)
    assert publisher.failure() is None
    getattr(publisher, call)(0.001)
    failure = publisher.failure()
    assert failure is not None
    assert failure.fault.name == "NEVER_REPORTED"
    assert "a report was lost as the producer failed" in failure.text
    publisher.rebuild()
    assert publisher.failure() is None
    publisher.close()


UNREACHABLE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.mark.parametrize("call", ["rebuild", "close"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_former_producer_keeps_no_record_that_it_never_reported(call: str, *, alone: bool) -> None:
    publisher = KafkaPublisher(UNREACHABLE, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)
    payload = b"x" * 1_000
    kept_before = sys.getrefcount(payload)
    record = publisher.inbox.record_type(Arm.FORWARD, 1, "event", "orders", "k", payload, "{}", None, 1, 1_000)
    if alone:
        assert publisher.publish_alone(record)
    else:
        assert publisher.publish([record], 0) == 1
    del record
    assert sys.getrefcount(payload) > kept_before
    getattr(publisher, call)()
    publisher.inbox.take()
    assert sys.getrefcount(payload) == kept_before


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_former_producer_reports_at_its_end_is_not_taken_for_news(*, alone: bool) -> None:
    publisher = KafkaPublisher(UNREACHABLE, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)
    record = publisher.inbox.record_type(Arm.FORWARD, 1, "event", "orders", "k", b"x", "{}", None, 1, 1)
    send = publisher.publish_alone if alone else lambda record: publisher.publish([record], 0)
    send(record)
    publisher.purge()
    publisher.rebuild()
    assert publisher.take_reports() == []
    send(record)
    publisher.poll(0.0)
    assert publisher.take_reports() == []
    # The next one's own reports come all the same.
    publisher.purge()
    reports: list[Report] = []
    while not reports:
        publisher.poll(0.01)
        reports = publisher.take_reports()
    assert [(report.record, report.alone) for report in reports] == [(record, alone)]
    publisher.close()


def test_rows_that_cannot_be_sent_are_refused_one_by_one_and_keep_no_other_of_their_batch() -> None:
    publisher = KafkaPublisher(
        {**UNREACHABLE, "message.max.bytes": "100000"}, source="shop", in_flight_rows_max=20, in_flight_bytes_max=10**6
    )

    def record(record_id: int, **changed: Any) -> Record:
        plain = publisher.inbox.record_type(Arm.FORWARD, record_id, "event", "orders", "k", b"x", "{}", None, 1, 10)
        return plain._replace(**changed)

    refused = {
        2: (record(2, topic="orders/created"), "INVALID_TOPIC"),
        3: (record(3, partition=-1), "UNKNOWN_PARTITION"),
        4: (record(4, created_at_ms=-1), "INVALID_TIMESTAMP"),
        5: (record(5, payload=b"x" * 100_001, size_bytes=100_010), "MSG_SIZE_TOO_LARGE"),
        6: (record(6, headers='{"outbox-id": "7"}'), "RESERVED_HEADER"),
        7: (record(7, key="\ud800"), "INVALID_KEY"),
        8: (record(8, payload=memoryview(b"x")), "INVALID_PAYLOAD"),
    }
    fine = [record(1), record(9, created_at_ms=0), record(10)]

    assert publisher.publish([fine[0], *(each for each, _ in refused.values()), *fine[1:]], 0) == 10

    reports = publisher.take_reports()
    assert {each.record.id: each.error.fault.name for each in reports if each.error is not None} == {
        record_id: name for record_id, (_, name) in refused.items()
    }
    assert all(report.alone for report in reports), "no other record shared the verdict"
    publisher.purge()
    given: list[int] = []
    while len(given) < len(fine):
        publisher.poll(0.01)
        given += [report.record.id for report in publisher.take_reports()]
    assert given == [each.id for each in fine]
    publisher.close()


MOCK = {"test.mock.num.brokers": "1", "linger.ms": "0", "sticky.partitioning.linger.ms": "0"}


@pytest.mark.parametrize("partitioner", [{}, {"partitioner": "consistent_random"}, {"partitioner": "murmur2_random"}])
@pytest.mark.parametrize("alone", [False, True])
def test_records_of_the_empty_key_meet_in_one_partition(partitioner: dict[str, str], *, alone: bool) -> None:
    publisher = KafkaPublisher(
        {**MOCK, **partitioner}, source="shop", in_flight_rows_max=100, in_flight_bytes_max=100_000
    )
    places: set[int | None] = set()
    for number in range(24):
        record = publisher.inbox.record_type(Arm.FORWARD, number, "event", "orders", "", b"x", "{}", None, 1, 1)
        assert publisher.publish_alone(record) if alone else publisher.publish([record], 0) == 1
        reports: list[Report] = []
        while not reports:
            publisher.poll(0.01)
            reports = publisher.take_reports()
        assert reports[0].error is None
        places.add(reports[0].partition)
    publisher.close()
    assert len(places) == 1


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(producer_maker, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory of certificates, which the client looks for when it is made."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    return directory


def publisher_with(certificates: Path) -> KafkaPublisher:
    properties = {**UNREACHABLE, "security.protocol": "ssl", "ssl.ca.location": str(certificates)}
    return KafkaPublisher(properties, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)


def test_a_producer_that_cannot_be_made_is_made_later_and_nothing_is_taken_before(
    certificates: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    publisher = publisher_with(certificates)
    record = publisher.inbox.record_type(Arm.FORWARD, 1, "event", "orders", "k", b"x", "{}", None, 1, 1)
    certificates.rmdir()
    publisher.rebuild()
    for _ in range(100):
        assert publisher.publish([record], 0) == 0
        assert not publisher.publish_alone(record)
        publisher.poll(0.001)
        publisher.flush(0.001)
        publisher.purge()
    assert clock.slept == [0.001] * 200, "it rests as it does while no broker answers"
    assert (publisher.failure(), publisher.take_reports()) == (None, [])
    assert "ssl.ca.location" in str(publisher.cluster_error)
    with pytest.raises(KafkaException):
        publisher.contact(0.001)
    assert caplog.text.count("no producer can be made") == 1

    clock.now += producer_maker.PAUSE_SECONDS
    publisher.poll(0.0)
    assert caplog.text.count("no producer can be made") == 2, "tried again, in vain"
    certificates.mkdir()
    publisher.poll(0.0)
    assert publisher.publish([record], 0) == 0, "not before another pause"
    clock.now += producer_maker.PAUSE_SECONDS
    publisher.poll(0.0)
    assert publisher.cluster_error is None
    assert publisher.publish([record], 0) == 1
    assert publisher.publish_alone(record)
    publisher.close()


def test_a_record_that_is_to_go_alone_waits_for_a_producer_that_cannot_be_made(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    publisher = publisher_with(certificates)
    record = publisher.inbox.record_type(Arm.FORWARD, 1, "event", "orders", "k", b"x", "{}", None, 1, 1)
    certificates.rmdir()
    assert not publisher.publish_alone(record)
    assert publisher.publish([record], 0) == 1, "the shared one is there"
    certificates.mkdir()
    clock.now += producer_maker.PAUSE_SECONDS
    assert publisher.publish_alone(record)
    publisher.close()


def test_where_no_thread_is_to_be_had_a_former_producer_is_let_go_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    publisher = KafkaPublisher(UNREACHABLE, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)
    monkeypatch.setattr("threading.Thread.start", fail)
    publisher.rebuild()
    publisher.close()
