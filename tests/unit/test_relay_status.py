"""A relay's status shows what waits and why, whatever the number of it, and costs the loop next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from outboxd.observability.metrics import Metrics
from outboxd.observability.status import StatusBoard
from outboxd.policy.exchange.messages import StopRequested
from outboxd.policy.exchange.reads import Pause
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import FailureHistory, Record
from outboxd.policy.topics.breakers import storm_note
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.relay import Ports, Relay, RelayEnd, RelayLimits
from outboxd.relay.status import SHOWN_MAX, status_of
from tests.unit.test_status_board import Clock


class _Silent:
    """Every port at once: takes any call and answers nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_arguments, **_fields: None

    def take(self) -> Sequence[object]:
        return ()

    def monotonic(self) -> float:
        return 100.0


def make_relay(*, token: int | None = 7) -> Relay:
    port = cast("Any", _Silent())
    ports = Ports(port, port, port, port, port, port, port)
    relay = Relay(ports, RelayLimits())
    if token is not None:
        relay.ownership.own(token)
    return relay


GAUGES = ("in_flight_records", "in_flight_bytes", "in_memory_records", "in_memory_bytes")


def record(record_id: int, *, key: str = "k", created_at_ms: int = 0) -> Record:
    return Record(0, record_id, "event", "orders", key, b"x", "{}", None, created_at_ms, 10)


def test_the_role_follows_the_lease_and_the_drain() -> None:
    assert status_of(make_relay(), 100.0).role == "owner"
    assert status_of(make_relay(token=None), 100.0).role == "standby"
    stopping = make_relay()
    stopping._take(StopRequested())
    assert status_of(stopping, 100.0).role == "draining"


def test_what_waits_behind_another_of_its_key_or_for_the_producer_is_in_memory_and_not_in_flight() -> None:
    relay = make_relay()
    state = relay.state
    records = [record(number, key=key) for number, key in enumerate(["k", "k", "k", "other"], 1)]
    state.ledger.enter(records)
    state.ready = state.gate.admit(records)
    state.lanes.count_in_flight(state.lanes["orders"], 1)
    state.ready_at = 1
    status = status_of(relay, 100.0)
    assert (status.in_memory_rows, status.in_memory_bytes) == (4, 40)
    assert (status.unsettled_rows, status.unsettled_bytes) == (1, 10)
    board = StatusBoard()
    metrics = Metrics(board)
    board.publish(status)
    shown = {name: metrics.registry.get_sample_value(f"outboxd_{name}") for name in GAUGES}
    assert shown == dict(zip(GAUGES, (1, 10, 4, 40), strict=True))


def test_what_was_reported_is_in_flight_until_it_is_settled() -> None:
    relay = make_relay()
    state = relay.state
    state.ledger.enter([record(1), record(2)])
    state.lanes.count_in_flight(state.lanes["orders"], 1)
    state.settling.ids.append(1)
    status = status_of(relay, 100.0)
    assert (status.in_flight_rows, status.unsettled_rows, status.unsettled_bytes) == (1, 2, 20)


def test_what_the_database_refused_is_in_flight_until_it_is_settled() -> None:
    relay = make_relay()
    state = relay.state
    state.ledger.enter([record(1), record(2), record(3)])
    for settlement in (Settlement(delivered_ids=[1]), Settlement(delivered_ids=[2, 3])):
        state.settling.under_way = settlement
        state.settling.refused(settlement, 100.0)
    assert (status_of(relay, 100.0).unsettled_rows, status_of(relay, 100.0).settling_rows) == (3, 3)


def test_a_refused_row_is_shown_while_it_is_tried_again_too() -> None:
    relay = make_relay()
    refusals = relay.state.settling.refusals
    assert refusals.refused(Settlement(delivered_ids=[1]), 100.0), "alone, so it is set aside"
    assert status_of(relay, 100.0).refused_rows == 1
    assert refusals.take(200.0) is not None
    assert status_of(relay, 200.0).refused_rows == 1
    assert refusals.ended()
    assert status_of(relay, 200.0).refused_rows == 0


def test_what_is_in_memory_is_counted_and_the_oldest_has_its_age_by_the_databases_clock() -> None:
    relay = make_relay()
    relay.state.ledger.enter([record(1, created_at_ms=1_000), record(2, created_at_ms=9_000)])
    relay.state.aftermath.now_ms = 11_000
    relay.state.lanes.count_in_flight(relay.state.lanes["orders"], 2)
    status = status_of(relay, 100.0)
    assert (status.in_memory_rows, status.in_memory_bytes, status.oldest_in_memory_seconds) == (2, 20, 10.0)
    assert (status.in_flight_rows, status.in_flight_by_topic) == (2, {"orders": 2})


def test_a_breaker_shows_its_cause_since_when_and_the_next_probe() -> None:
    relay = make_relay()
    fault = own_fault("IN_FLIGHT_TOO_OLD")
    relay.state.lanes.breakers.trip("orders", fault, "stuck", 90.0)
    relay.state.topics.hold("orders", HoldReason.BREAKER, 90.0)
    relay.state.topics.hold("orders", HoldReason.PAUSED, 90.0)
    relay.state.lanes.pauses = [Pause("ord*", 5, "anna", None)]
    status = status_of(relay, 100.0)
    (breaker,) = status.breakers
    assert (breaker.topic, breaker.error_code, breaker.cause) == ("orders", "IN_FLIGHT_TOO_OLD", "stuck")
    assert (breaker.open_seconds, breaker.next_probe_in_seconds) == (10.0, 0.0)
    assert status.held_topics[0].reasons == ["breaker", "paused"]
    assert (status.pauses[0].topic_pattern, status.pauses[0].who) == ("ord*", "anna")
    relay.state.lanes.breakers.probing("orders", 5)
    assert status_of(relay, 100.0).breakers[0].next_probe_in_seconds is None


def test_many_held_records_are_counted_and_a_bounded_number_is_shown() -> None:
    relay = make_relay()
    for number in range(1_000):
        history, key = FailureHistory(2, number if number % 2 else None), f"k{number}"
        relay.state.held.add(
            HeldRecord(number, "orders", ("orders", key), history, HeldState.SCHEDULED, "retry", 90.0, 130.0, key)
        )
    status = status_of(relay, 100.0)
    assert (status.held_records, status.held_keys, len(status.held)) == (1_000, 1_000, SHOWN_MAX)
    first = status.held[0]
    assert (first.key, first.why, first.attempts, first.age_seconds, first.due_in_seconds) == (
        "k0",
        "retry",
        2,
        10.0,
        30.0,
    )
    assert status.held[1].dead_letter_id == 1


def test_a_dead_letter_is_not_due_though_a_new_owner_loads_it_with_a_time() -> None:
    relay = make_relay()
    for number, state in enumerate((HeldState.DEAD, HeldState.PARKED)):
        relay.state.held.add(
            HeldRecord(number, "orders", ("orders", "k"), FailureHistory(1, 7), state, "dead letter", 90.0, 95.0, "k")
        )
    assert [held.due_in_seconds for held in status_of(relay, 100.0).held] == [None, None]


def test_topics_that_are_stuck_are_in_the_status_with_the_cause() -> None:
    relay = make_relay()
    relay.ownership.watch._told |= {"orders": "refused", "payments": "refused"}
    assert status_of(relay, 100.0).stalled_topics == {"orders": "refused", "payments": "refused"}


def test_a_held_record_of_a_topic_that_goes_one_at_a_time_shows_its_key() -> None:
    relay = make_relay()
    for number, key in enumerate(("customer-9", None)):
        history = FailureHistory(2, None)
        relay.state.held.add(
            HeldRecord(number, "orders", ("orders", None), history, HeldState.SCHEDULED, "retry", 90.0, key=key)
        )
    assert [held.key for held in status_of(relay, 100.0).held] == ["customer-9", None]


def test_a_relay_that_ended_says_how() -> None:
    relay = make_relay()
    relay.end = RelayEnd("blocked", ("orders",))
    status = status_of(relay, 100.0)
    assert (status.ended, status.blocked_topics) == ("blocked", ("orders",))


def test_the_board_looks_four_times_a_second_at_most() -> None:
    clock, relay = Clock(), make_relay()
    board = StatusBoard(monotonic=clock, wall=clock)
    looks = 0
    seen: SimpleNamespace | object = None
    for _ in range(100):
        board.look(relay)
        if board.relay is not seen:
            seen, looks = board.relay, looks + 1
        clock.now += 0.02
    assert 7 <= looks <= 9


def test_a_hold_of_the_storm_guard_is_shown_until_an_operator_ends_it_whoever_began_it() -> None:
    relay = make_relay()
    lanes = relay.state.lanes
    fault = own_fault("INVALID_HEADERS")
    board = StatusBoard()
    metrics = Metrics(board)

    def shown() -> tuple[float | None, ...]:
        board.publish(status_of(relay, 100.0))
        return tuple(metrics.registry.get_sample_value(f"outboxd_{name}") for name in ("storm_holds", "paused"))

    pause, note = Pause("other", 0, "anna", None), Pause("orders", 0, "a daemon", storm_note(fault))
    lanes.pause([pause], 0.0)
    assert shown() == (0.0, 1.0)
    lanes.storms_noted([lanes.storm("orders", fault)])
    assert shown() == (1.0, 1.0), "nobody read it in `control` yet"
    lanes.pause([pause, note], 101.0)
    assert shown() == (1.0, 2.0)
    lanes.pause([pause], 102.0)
    assert shown() == (0.0, 1.0)
    lanes.pause([pause, note], 103.0)
    assert shown() == (1.0, 2.0), "an owner before this one may have held it"
