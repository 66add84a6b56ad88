"""Reading the log back: a partition is read as far as it was asked for, whatever a replica says of its end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from outboxd.kafka.cluster.log_reader import LogReader

AT = ("orders", 0)


class FakeConsumer:
    """Gives these messages, one a call."""

    def __init__(self, messages: list[SimpleNamespace]) -> None:
        self._messages = messages

    def assign(self, partitions: object) -> None: ...

    def unassign(self) -> None: ...

    def consume(self, count: int, timeout: float) -> list[SimpleNamespace]:
        return [self._messages.pop(0)]


def message_of(offset: int, code: int | None = None) -> SimpleNamespace:
    topic, partition = AT
    return SimpleNamespace(
        topic=lambda: topic,
        partition=lambda: partition,
        offset=lambda: offset,
        error=lambda: None if code is None else KafkaError(code),
        key=lambda: b"key",
        headers=list,
    )


def reader_of(monkeypatch: pytest.MonkeyPatch, *messages: SimpleNamespace) -> LogReader:
    monkeypatch.setattr("outboxd.kafka.cluster.log_reader.Consumer", lambda _: FakeConsumer(list(messages)))
    return LogReader({}, "default")


def test_a_replica_that_lags_says_that_the_log_ends_and_is_read_on_to_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = KafkaError._PARTITION_EOF
    reader = reader_of(monkeypatch, message_of(0), message_of(1, end), message_of(1))
    assert [record.offset for record in reader.read({AT: [0, 1]})] == [0, 1]


def test_an_end_behind_what_was_asked_for_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Offset 1 is there no more, by compaction.
    reader = reader_of(monkeypatch, message_of(0), message_of(2, KafkaError._PARTITION_EOF))
    assert [record.offset for record in reader.read({AT: [0, 1]})] == [0]


def test_who_reads_here_and_there_has_no_client_that_reads_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr("outboxd.kafka.cluster.log_reader.Consumer", made.append)
    LogReader({}, "default", reads_ahead=False)
    ahead_kbytes = [config["queued.max.messages.kbytes"] for config in made]
    assert ahead_kbytes == [64, 64]
