"""What a transaction as a whole was refused for, and what is tried next."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from outboxd.kafka.transactional.aborts import Refusal, halved, progress_refusal, topics_refusal
from outboxd.kafka.transactional.verdicts import Attempt, Way
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Arm, Record

FAULT = DeliveryFault(own_fault("PROGRESS_REFUSED"), "why")


def attempt(*topics: str) -> Attempt:
    rows = [
        Record(Arm.FORWARD, number, "", topic, "k", b"", "{}", None, 1, 1) for number, topic in enumerate(topics, 1)
    ]
    return Attempt(rows, Way.LONE, is_probe=True)


def ids(parts: list[Attempt]) -> list[list[int]]:
    assert all((part.way, part.is_probe) == (Way.LONE, True) for part in parts)
    return [[record.id for record in part.records] for part in parts]


def test_what_is_of_one_topic_halves_the_topics_until_one_is_left() -> None:
    refusal = Refusal(FAULT, is_of_one_topic=True)
    assert ids(halved(attempt("a", "b", "c", "a"), refusal)) == [[1, 4], [2, 3]]
    assert halved(attempt("a", "a"), refusal) == []


def test_a_progress_record_that_is_too_large_halves_the_rows_until_one_is_left() -> None:
    refusal = progress_refusal("progress", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert refusal is not None
    assert ids(halved(attempt("a", "b", "a"), refusal)) == [[1], [2, 3]]
    assert halved(attempt("a"), refusal) == []


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.MSG_SIZE_TOO_LARGE])
def test_whatever_the_progress_topic_refuses_is_no_rows_fault(code: int) -> None:
    refusal = progress_refusal("progress-of-it", KafkaError(code, "the brokers' words"))
    assert refusal is not None
    assert refusal.fault.fault.name == "PROGRESS_REFUSED"
    assert refusal.fault.fault.fault_class.value == "topic"
    assert "progress-of-it" in refusal.fault.text
    assert "the brokers' words" in refusal.fault.text
    assert len(halved(attempt("a", "b"), refusal)) == (2 if code == KafkaError.MSG_SIZE_TOO_LARGE else 0)


@pytest.mark.parametrize("code", [KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
def test_what_may_pass_is_no_refusal(code: int) -> None:
    assert progress_refusal("progress", KafkaError(code)) is None
    assert topics_refusal(KafkaError(code)) is None


def test_only_a_fault_of_topics_is_looked_for_among_them() -> None:
    refusal = topics_refusal(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert refusal is not None
    assert refusal.is_of_one_topic
    assert refusal.fault.fault.name == "TOPIC_AUTHORIZATION_FAILED"
    assert topics_refusal(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) is None
    assert topics_refusal(None) is None
