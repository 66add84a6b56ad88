"""The headers of a dead letter's copy, for letters of every kind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.dead_letter_copies import DeadLetterCopier
from outboxd.maintenance.dead_letter_copies import DeadLetterCopies
from outboxd.policy.exchange.dead_letter_copies import DeadCopy, copy_headers

LETTER = DeadCopy(
    3, datetime(2026, 1, 1, tzinfo=UTC), 7, "e7", "orders", "k", b"payload", '{"trace": "t"}', 9,
    "MSG_SIZE_TOO_LARGE", "10 MSG_SIZE_TOO_LARGE at orders-9: too large.",
)  # fmt: skip


def test_the_applications_own_headers_come_first_and_the_ecosystems_are_there() -> None:
    headers = copy_headers(LETTER, "default", json.loads)
    assert headers[0] == ("trace", b"t")
    named = dict(headers)
    assert named["__connect.errors.topic"] == named["kafka_dlt-original-topic"] == b"orders"
    assert named["__connect.errors.partition"] == b"9"
    assert named["kafka_dlt-original-partition"] == b"\x00\x00\x00\x09"
    assert named["kafka_dlt-exception-message"] == named["__connect.errors.exception.message"]
    assert "outbox-payload-left-out-bytes" not in named


def test_what_a_row_does_not_have_is_left_out_and_what_cannot_be_sent_spoils_nothing() -> None:
    odd = LETTER._replace(partition=None, headers='{"outbox-id": "7"}', topic="no\ntopic" * 100)
    named = dict(copy_headers(odd, "default", json.loads))
    assert named["outbox-id"] == b"7"
    assert not {"__connect.errors.partition", "kafka_dlt-original-partition", "__connect.errors.offset"} & named.keys()
    topic = named["__connect.errors.topic"]
    assert topic is not None
    assert b"\n" not in topic
    assert len(topic) < 310
    assert "kafka_dlt-original-partition" not in dict(copy_headers(LETTER._replace(partition=2**31), "d", json.loads))


def test_the_properties_of_a_reload_are_those_of_the_next_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def make(config: dict[str, Any]) -> object:
        made.append(config)
        # Nothing is sent by it.
        return object()

    monkeypatch.setattr("outboxd.kafka.dead_letter_copies.Producer", make)
    copier = DeadLetterCopier({"sasl.password": "old"}, "dead", "default")
    for properties in ({"sasl.password": "old"}, {"sasl.password": "new"}, {"sasl.password": "new"}):
        copier.take_properties(properties)
        copier.send([], threading.Event())
        copier.send([], threading.Event())
    # The same once more, since files that they name may have changed.
    assert [config["sasl.password"] for config in made] == ["old", "new", "new"]


def test_a_copy_without_its_payload_says_how_much_was_left_out() -> None:
    named = dict(copy_headers(LETTER, "default", json.loads, payload_left_out=True))
    assert named["outbox-payload-left-out-bytes"] == b"7"
    assert "trace" not in named


@dataclass
class Rows:
    """The table: what waits, and what was noted."""

    letters: list[DeadCopy]

    def waiting(self) -> list[DeadCopy]:
        return list(self.letters)

    def copied(self, letters: Sequence[DeadCopy]) -> None:
        self.letters = [letter for letter in self.letters if letter not in letters]


class RefusingProducer:
    """Acknowledges all but what has this key."""

    def __init__(self, config: dict[str, Any]) -> None:
        del config
        self._reports: list[tuple[Callable[[KafkaError | None, None], None], KafkaError | None]] = []

    def produce(self, topic: str, payload: bytes | None, key: str | None, **more: Any) -> None:
        del topic, payload
        self._reports.append((more["on_delivery"], KafkaError(KafkaError._MSG_TIMED_OUT) if key == "sick" else None))

    def poll(self, timeout_seconds: float) -> None:
        del timeout_seconds
        for report, error in self._reports:
            report(error, None)
        self._reports.clear()


def test_copies_that_were_acknowledged_are_noted_where_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.kafka.dead_letter_copies.Producer", RefusingProducer)
    sick = LETTER._replace(id=2, key="sick")
    rows, stop = Rows([LETTER._replace(id=1), sick, LETTER]), threading.Event()
    copies = DeadLetterCopies(rows, DeadLetterCopier({}, "dead", "default"), stop, lambda: True)
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match="the copy of dead letter 2 was refused"):
            copies.run()
        assert rows.letters == [sick]


class NotedProducer:
    """Acknowledges whatever it is given."""

    def __init__(self, config: dict[str, Any]) -> None:
        del config
        self.given: list[tuple[object, ...]] = []
        self._reports: list[Callable[[None, None], None]] = []

    def produce(self, topic: str, payload: bytes | None, key: str | None, **more: Any) -> None:
        self.given.append((topic, payload, key, dict(more["headers"])))
        self._reports.append(more["on_delivery"])

    def poll(self, timeout_seconds: float) -> None:
        del timeout_seconds
        for report in self._reports:
            report(None, None)
        self._reports.clear()


def test_of_a_row_that_kills_who_sends_it_only_what_is_told_of_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.kafka.dead_letter_copies.Producer", NotedProducer)
    copier = DeadLetterCopier({}, "dead", "default")
    killer = LETTER._replace(error_code="CRASHED_DAEMON")
    assert copier.send([killer, LETTER], threading.Event()) == ([killer, LETTER], "")

    producer: Any = copier._producer
    (topic, payload, key, headers), (_, *other, other_headers) = producer.given
    assert (topic, payload, key) == ("dead", None, None)
    assert "trace" not in headers
    assert headers["outbox-payload-left-out-bytes"] == b"7"
    assert headers["outbox-id"] == b"7"
    assert (other, other_headers["trace"]) == ([b"payload", "k"], b"t")
