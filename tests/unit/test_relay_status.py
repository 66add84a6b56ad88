"""A relay's status shows what waits and why, whatever the number of it, and costs the loop next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from outboxd.observability.status import StatusBoard
from outboxd.policy.faults import own_fault
from outboxd.policy.messages import Pause, StopRequested
from outboxd.policy.records import FailureHistory, Record
from outboxd.policy.topic_holds import HoldReason
from outboxd.relay.held_records import HeldRecord, HeldState
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


def record(record_id: int, *, created_at_ms: int = 0) -> Record:
    return Record(0, record_id, "event", "orders", "k", b"x", "{}", None, created_at_ms, 10)


def test_the_role_follows_the_lease_and_the_drain() -> None:
    assert status_of(make_relay(), 100.0).role == "owner"
    assert status_of(make_relay(token=None), 100.0).role == "standby"
    stopping = make_relay()
    stopping._take(StopRequested())
    assert status_of(stopping, 100.0).role == "draining"


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
        history = FailureHistory(2, number if number % 2 else None)
        relay.state.held.add(
            HeldRecord(number, "orders", ("orders", f"k{number}"), history, HeldState.SCHEDULED, "retry", 90.0, 130.0)
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
