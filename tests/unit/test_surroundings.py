"""Whether a broker answers: told once when none does, with the producer's own reason, and once when one does again."""

from __future__ import annotations

import logging
from queue import SimpleQueue
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from outboxd.daemon.surroundings import CONTACT_RETRY_SECONDS, BrokerContact
from outboxd.observability.library_lines import QUIET_SECONDS, LibraryLines
from outboxd.observability.status import StatusBoard
from tests.support.children import wait_for

WAIT_SECONDS = 10.0


def test_that_no_broker_answers_is_told_once_with_the_reason_and_that_one_does_again_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outboxd.daemon.surroundings.CONTACT_RETRY_SECONDS", 0.0)
    monkeypatch.setattr("outboxd.daemon.surroundings.CONTACT_PAUSE_SECONDS", 0.0)
    answers: SimpleQueue[bool] = SimpleQueue()
    events: SimpleQueue[tuple[str, dict[str, object]]] = SimpleQueue()
    board = StatusBoard()

    def contact(_: float) -> str | None:
        if not answers.get():
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Broker transport failure"))
        return None

    watched = BrokerContact(contact, board, lambda name, **fields: events.put((name, fields)), lambda: "wrong password")
    watched.start()
    for answer in (False, False, True, True, False):
        answers.put(answer)
    told = [events.get(timeout=WAIT_SECONDS) for _ in range(3)]
    wait_for(lambda: board.kafka.answers is False, timeout_seconds=WAIT_SECONDS, what="the board knows")
    watched.stop()
    answers.put(True)
    failed = ("kafka_failed", {"cause": "wrong password"})
    assert told == [failed, ("kafka_answers", {}), failed]
    assert board.kafka.cause == "wrong password"


def test_that_another_cluster_answers_is_told_once_and_the_producer_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.daemon.surroundings.CONTACT_RETRY_SECONDS", 0.0)
    monkeypatch.setattr("outboxd.daemon.surroundings.CONTACT_PAUSE_SECONDS", 0.0)
    answers: SimpleQueue[str | Exception | None] = SimpleQueue()
    told: SimpleQueue[tuple[str, dict[str, object]]] = SimpleQueue()
    changes: SimpleQueue[int] = SimpleQueue()

    def contact(_: float) -> str | None:
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    watched = BrokerContact(
        contact,
        StatusBoard(),
        lambda name, **fields: told.put((name, fields)),
        cluster_changed=lambda: changes.put(1),
    )
    watched.start()
    gone = KafkaException(KafkaError(KafkaError._TRANSPORT, "gone"))
    for answer in ("one", None, "one", gone, "two", "two", None, "two", "three"):
        answers.put(answer)
    events = [told.get(timeout=WAIT_SECONDS) for _ in range(4)]
    for _ in range(2):
        changes.get(timeout=WAIT_SECONDS)
    watched.stop()
    answers.put("three")
    assert [name for name, _ in events] == [
        "kafka_failed",
        "kafka_answers",
        "kafka_cluster_changed",
        "kafka_cluster_changed",
    ]
    assert [fields for _, fields in events[2:]] == [
        {"former": "one", "cluster": "two"},
        {"former": "two", "cluster": "three"},
    ]
    assert changes.empty()


def test_that_no_broker_answers_is_told_in_words_where_the_producer_knows_no_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outboxd.daemon.surroundings.CONTACT_RETRY_SECONDS", 0.0)
    causes: SimpleQueue[object] = SimpleQueue()
    board = StatusBoard()

    def contact(_: float) -> str | None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata: Broker transport failure"))

    watched = BrokerContact(contact, board, lambda name, **fields: causes.put(fields["cause"]))
    watched.start()
    cause = causes.get(timeout=WAIT_SECONDS)
    watched.stop()
    assert cause == board.kafka.cause
    said = "_TRANSPORT: Failed to get metadata: Broker transport failure"
    assert cause == f"{said}; look at bootstrap.servers, the brokers and the way"


def test_a_broker_that_stands_still_just_after_its_answer_is_on_the_board_within_fifteen_seconds() -> None:
    now, asked_at = 100.0, list[float]()
    board = StatusBoard()

    def pass_by(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return False

    def contact(seconds: float) -> str | None:
        asked_at.append(now)
        if len(asked_at) > 1:
            pass_by(seconds)
            watched.stop()
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))
        return None

    watched = BrokerContact(contact, board, lambda *_, **__: None)
    watched._stopping.wait = pass_by  # type: ignore[assignment,method-assign]  # time goes by without waiting
    watched._work()
    assert board.kafka.answers is False
    assert now - CONTACT_RETRY_SECONDS - asked_at[0] < 15


def test_lines_of_a_library_that_differ_in_numbers_only_are_told_once_a_minute_with_how_many_they_were() -> None:
    now = 0.0
    told: list[str] = []

    def event(name: str, **fields: object) -> None:
        assert name == "library_message"
        told.append(cast(str, fields["cause"]))

    lines = LibraryLines(event, lambda: now)

    def warn(message: str) -> None:
        lines.handle(logging.LogRecord("client", logging.WARNING, "", 0, message, None, None))

    for attempt in range(5):
        warn(f"connect to 127.0.0.1:9092 failed (after {attempt} ms)")
    warn("something else")
    now = QUIET_SECONDS
    warn("connect to 127.0.0.1:9092 failed (after 9 ms)")
    assert told == [
        "connect to 127.0.0.1:9092 failed (after 0 ms)",
        "something else",
        "connect to 127.0.0.1:9092 failed (after 9 ms) (and 4 like it)",
    ]


def test_a_line_of_a_library_about_an_exception_says_which() -> None:
    told: list[object] = []
    lines = LibraryLines(lambda name, **fields: told.append(fields["cause"]), lambda: 0.0)
    gone = OSError("server closed the connection\n\tunexpectedly")
    lines.handle(logging.LogRecord("pool", logging.ERROR, "", 0, "Exception during reset", None, (OSError, gone, None)))
    assert told == ["Exception during reset: OSError: server closed the connection unexpectedly"]
