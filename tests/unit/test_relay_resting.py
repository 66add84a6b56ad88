"""How long the loop waits at the end of a turn, and for what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.routes import Confirm, Route
from outboxd.relay.publishing import Publishing
from outboxd.relay.reading import Reading
from outboxd.relay.resting import Resting
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import Watch
from outboxd.relay.writing import Writing
from tests.unit.records import record

NOW = 100.0


def test_fire_and_forget_records_wait_for_reports_of_others_and_for_nothing_once_those_are_in() -> None:
    ports = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: NOW),
        lease=SimpleNamespace(trusted_until=lambda: NOW + 9.0),
        observer=None,
        publisher=None,
        dice=None,
    )
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(confirm=Confirm.NONE), token=1)
    state.lanes.meet(["orders"])
    resting = Resting(state, Publishing(state), Reading(state), Writing(state), Watch(state))

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
