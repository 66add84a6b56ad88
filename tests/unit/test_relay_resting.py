"""How long the loop waits at the end of a turn, and for what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.relay.fetch.reading import Reading
from outboxd.relay.publish.producer_ends import ProducerEnds
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.resting import POLL_SLICE_SECONDS, STILL_SECONDS, STILL_SLICE_SECONDS, Resting
from outboxd.relay.settle.writing import Writing
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import Watch
from tests.unit.records import record

NOW = 100.0


class Client:
    """A publisher that notes how long it is waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def poll(self, timeout_seconds: float) -> None:
        self.waits.append(timeout_seconds)

    flush = poll


def resting_of(client: Client | None = None, *, confirm: Confirm = Confirm.CALLBACK) -> tuple[Resting, State]:
    ports = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: NOW),
        lease=SimpleNamespace(trusted_until=lambda: NOW + 9.0),
        observer=None,
        publisher=client,
        mailbox=None,
        dice=None,
    )
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(confirm=confirm), token=1)
    state.lanes.meet(["orders"])
    return Resting(state, Publishing(state, ProducerEnds()), Reading(state), Writing(state), Watch(state)), state


def test_what_is_in_flight_is_waited_for_by_the_millisecond_and_less_often_where_nothing_moves() -> None:
    client = Client()
    resting, state = resting_of(client)
    state.lanes.published([record(1)])
    for still_seconds in (0.0, STILL_SECONDS / 2, STILL_SECONDS):
        state.lanes.last_delivered_at = NOW - still_seconds
        resting.rest(NOW, NOW + 5.0)
    resting.rest(NOW, NOW + STILL_SLICE_SECONDS / 4)
    sliced = [POLL_SLICE_SECONDS, POLL_SLICE_SECONDS, STILL_SLICE_SECONDS, STILL_SLICE_SECONDS / 4]
    assert client.waits == pytest.approx(sliced)


def test_fire_and_forget_records_wait_for_reports_of_others_and_for_nothing_once_those_are_in() -> None:
    resting, state = resting_of(confirm=Confirm.NONE)

    def deadline() -> float:
        return resting.next_deadline(NOW, [NOW + 5.0], may_read=False, may_settle=False)

    resting._watch.next_at = NOW + 7.0
    state.unconfirmed = [record(2)]
    state.lanes.published([record(1)])
    assert deadline() == NOW + 5.0

    state.lanes.nothing_in_flight()
    assert deadline() == NOW

    state.draining = True
    assert deadline() == NOW + 5.0
