"""What the producer of chains says of its end: whose failure it was, and what is certainly in no log."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.kafka.plain.chain_producer import ChainProducer
from outboxd.policy.exchange.messages import Report
from tests.unit.records import record

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
PURGED = KafkaError._PURGE_QUEUE
TIMED_OUT = KafkaError.REQUEST_TIMED_OUT


class EndedProducer:
    """Has nothing any more, and reports nothing more."""

    def poll(self, timeout_seconds: float) -> int:
        del timeout_seconds
        return 0

    def purge(self, **_: object) -> None:
        """Drop nothing."""

    def __len__(self) -> int:
        return 0


class Bench:
    """A producer of chains whose failures are what the test puts into the inbox."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        nothing: Any = None
        present: Any = EndedProducer()
        self.chains = ChainProducer(lambda: present, nothing, nothing, self.inbox)
        self.chains.needed()

    def fails(self, record_id: int, code: int, *, topic: str = "orders", partition: int = 0) -> None:
        fault = delivery_fault(KafkaError(code), alone=False)
        self.inbox.chain_failures.append(Report(record(record_id, topic=topic), fault, partition, None))

    def failure(self) -> tuple[str | None, str]:
        self.chains.serve(0.0)
        failure = self.chains.failure()
        assert failure is not None
        return failure.topic, failure.error.fault.name


def test_what_another_broker_s_thread_gave_back_before_the_refusal_is_not_the_failure() -> None:
    bench = Bench()
    bench.fails(1, PURGED, topic="invoices")
    bench.fails(2, TOO_LARGE)
    assert bench.failure() == ("orders", "MSG_SIZE_TOO_LARGE")


def test_what_was_given_back_blames_no_topic_and_the_refusal_that_comes_later_says_more() -> None:
    bench = Bench()
    bench.fails(1, PURGED, topic="invoices")
    assert bench.failure() == (None, "_PURGE_QUEUE")
    bench.fails(2, TOO_LARGE)
    assert bench.failure() == ("orders", "MSG_SIZE_TOO_LARGE")


def test_what_stands_behind_a_refused_batch_of_its_partition_is_certainly_in_no_log() -> None:
    bench = Bench()
    bench.fails(1, TOO_LARGE)
    bench.fails(2, PURGED)
    assert bench.chains.end(was_cut_off=True)[1] == {1, 2}


@pytest.mark.parametrize(("was_cut_off", "unwritten"), [(True, {1}), (False, {1, 2, 3})])
def test_what_was_given_back_of_another_partition_may_have_been_sent_before_where_a_connection_failed(
    *, was_cut_off: bool, unwritten: set[int]
) -> None:
    bench = Bench()
    bench.fails(1, TOO_LARGE)
    bench.fails(2, PURGED, partition=1)
    bench.fails(3, PURGED, topic="invoices")
    assert bench.chains.end(was_cut_off=was_cut_off)[1] == unwritten


def test_what_stands_behind_a_batch_that_may_be_written_counts_as_that_too_where_a_connection_failed() -> None:
    bench = Bench()
    bench.fails(1, TIMED_OUT)
    bench.fails(2, PURGED)
    assert bench.chains.end(was_cut_off=True)[1] == set()
