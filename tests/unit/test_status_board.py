"""The board tells what the relay does, in numbers and in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from outboxd.observability.status import Backlog, StatusBoard
from outboxd.relay.settle.writing import REFUSED
from outboxd.relay.status import BreakerStatus, HeldTopicStatus, RelayStatus


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


IDLE = RelayStatus(
    role="owner", token=1, turns=1, in_memory_rows=0, in_memory_bytes=0, unsettled_rows=0, unsettled_bytes=0,
    in_flight_rows=0, in_flight_by_topic={},
    settling_rows=0, oldest_in_memory_seconds=0.0, held_records=0, held_keys=0, held=(), breakers_open=0, breakers=(),
    topics_held=0, held_topics=(), pauses=(), deferred_keys=0, deferred_topics=0, topics=0,
)  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> StatusBoard:
    return StatusBoard(monotonic=clock, wall=clock)


def pass_seconds(board: StatusBoard, clock: Clock, seconds: int, rows: int = 0, **changes: Any) -> None:
    for _ in range(seconds):
        board.delivered(rows, rows * 100)
        clock.now += 1
        board.publish(replace(IDLE, turns=int(clock.now), **changes))


def test_an_owner_that_sends_nothing_as_it_does_not_know_what_was_sent_before_says_so(board: StatusBoard) -> None:
    board.publish(replace(IDLE, recovery_failure="no topic"))
    assert board.sentence() == "relaying, idle, nothing is sent until what was sent before is known"


def test_before_the_first_turn_it_is_starting(board: StatusBoard) -> None:
    assert board.sentence() == "starting"
    assert board.as_dict()["relay"] is None


def test_rates_are_means_over_one_ten_and_six_hundred_seconds(board: StatusBoard, clock: Clock) -> None:
    board.publish(IDLE)
    pass_seconds(board, clock, 10, rows=0)
    pass_seconds(board, clock, 5, rows=100)
    rates = board.rates()
    assert (rates.one_second, rates.ten_seconds) == (100, 50)
    assert rates.ten_minutes == pytest.approx(500 / 15)


def test_the_ring_holds_ten_minutes(board: StatusBoard, clock: Clock) -> None:
    board.publish(IDLE)
    pass_seconds(board, clock, 700)
    points = board.points()
    assert len(points) == 600
    assert points[-1].at == clock.now


def test_several_looks_a_second_make_one_point(board: StatusBoard, clock: Clock) -> None:
    for _ in range(8):
        board.publish(IDLE)
        clock.now += 0.25
    assert len(board.points()) == 1


def test_the_lag_is_the_worst_of_the_acknowledged_the_waiting_and_the_pending(board: StatusBoard, clock: Clock) -> None:
    board.publish(IDLE)
    board.acknowledged_after(0.3)
    pass_seconds(board, clock, 1)
    assert board.lag_seconds() == 0.3
    pass_seconds(board, clock, 1, oldest_in_memory_seconds=2.0)
    assert board.lag_seconds() == 2.0
    board.measured(Backlog(pending=5, oldest_pending_seconds=60.0, measured_at=clock.now))
    pass_seconds(board, clock, 3)
    assert board.lag_seconds() == 63.0


def test_the_sentence_says_what_a_person_wants_to_know_first(board: StatusBoard, clock: Clock) -> None:
    board.publish(IDLE)
    assert board.sentence() == "relaying, idle"
    board.database_answers(False, "connection refused")
    board.measured(Backlog(dead=10_000, dead_is_more=True))
    pass_seconds(board, clock, 10, rows=1234, topics_held=2, held_keys=3)
    assert board.sentence() == (
        "relaying, 1,234 rows/s, lag 0 ms, the database does not answer, 2 topics on hold, 3 keys held, "
        "10,000+ dead letters"
    )
    board.publish(replace(IDLE, role="standby", token=None))
    assert board.sentence().startswith("standing by, the database")


def test_a_database_that_refuses_to_settle_is_told_from_one_that_does_not_answer(board: StatusBoard) -> None:
    board.publish(IDLE)
    board.database_answers(False, "row 2 is frozen", asked_by=[REFUSED])
    assert board.sentence() == "relaying, idle, the database refuses to settle rows that were sent"
    assert board.as_dict()["database"]["refuses"]
    board.database_answers(False, "connection refused", asked_by=["fetch"])
    assert board.sentence() == "relaying, idle, the database does not answer"
    board.database_answers(True, asked_by=["fetch", REFUSED])
    assert board.sentence() == "relaying, idle"
    assert not board.as_dict()["database"]["refuses"]


def test_the_sentence_names_a_topic_that_is_stuck_while_brokers_answer(board: StatusBoard) -> None:
    board.kafka_answers(True)
    board.publish(replace(IDLE, stalled_topics={"orders\nREADY=1": "refused"}))
    assert board.sentence() == "relaying, idle, orders READY=1 is stuck"
    board.publish(replace(IDLE, stalled_topics={"orders": "refused", "audit": "refused"}))
    assert board.sentence() == "relaying, idle, orders and 1 other topic are stuck"
    board.kafka_answers(False, "refused")
    assert board.sentence() == "relaying, idle, Kafka does not answer"


def test_the_sentence_names_a_topic_on_hold_and_why_before_one_that_somebody_paused(board: StatusBoard) -> None:
    breaker = BreakerStatus("orders\nREADY=1", "TOPIC_AUTHORIZATION_FAILED", "denied", 5.0, 1, None)
    paused, held = HeldTopicStatus("audit", ["paused"]), HeldTopicStatus(breaker.topic, ["breaker"])
    board.publish(replace(IDLE, topics_held=1, held_topics=[held], breakers=[breaker], held_keys=1))
    board.measured(Backlog(dead=1))
    assert board.sentence() == (
        "relaying, idle, 1 topic on hold (orders READY=1: TOPIC_AUTHORIZATION_FAILED), 1 key held, 1 dead letter"
    )
    board.publish(replace(IDLE, topics_held=2, held_topics=[paused, held], breakers=[breaker]))
    assert "2 topics on hold (orders READY=1: TOPIC_AUTHORIZATION_FAILED)" in board.sentence()
    board.publish(replace(IDLE, topics_held=1, held_topics=[paused]))
    assert "1 topic on hold (audit: paused)" in board.sentence()


def test_a_server_is_down_since_it_first_did_not_answer(board: StatusBoard, clock: Clock) -> None:
    board.kafka_answers(False, "refused")
    began = clock.now
    clock.now += 5
    board.kafka_answers(False, "no route")
    assert board.kafka.since == began
    assert board.kafka.cause == "no route"
    clock.now += 5
    board.kafka_answers(True)
    assert (board.kafka.is_up, board.kafka.since, board.kafka.cause) == (True, clock.now, "")


def test_all_of_it_is_json(board: StatusBoard, clock: Clock) -> None:
    board.publish(IDLE)
    pass_seconds(board, clock, 2, rows=5)
    told = orjson.loads(orjson.dumps(board.as_dict()))
    assert told["relay"]["role"] == "owner"
    assert told["rates"]["one_second"] == 5
