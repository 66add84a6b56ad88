"""What was acknowledged is counted by topic, also where nobody waits for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.faults import own_fault
from outboxd.policy.messages import DeliveryFault, Report
from outboxd.policy.routes import Confirm, Route
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record


def test_fire_and_forget_records_are_counted_once_acknowledged_and_lost_ones_are_not() -> None:
    counted: list[tuple[str, int, int]] = []
    told: list[str] = []
    observer = SimpleNamespace(
        delivered=lambda *counts: counted.append(counts),
        failed=lambda topic, code, kind: told.append(topic),
        event=lambda name, **fields: told.append(name),
    )
    ports = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0), observer=observer, dice=None)
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(confirm=Confirm.NONE), token=1)
    records = [record(1, topic="a"), record(2, topic="b"), record(3, topic="a", size_bytes=50), record(4, topic="a")]
    state.lanes.meet(["a", "b"])
    state.lanes.published(records)
    lost = DeliveryFault(own_fault("NEVER_REPORTED"), "never reported")
    reports = [Report(one, None, 0, one.id) for one in records[:3]] + [Report(records[3], lost, None, None)]

    assert state.aftermath.deliveries.count_losses(reports, 0.0) == []

    assert sorted(counted) == [("a", 2, 150), ("b", 1, 100)]
    assert told == ["a", "record_lost"]
    assert state.lanes.rows_in_flight == 0


def test_a_fire_and_forget_record_that_the_producer_refuses_is_not_settled_and_has_its_own_outcome() -> None:
    told: list[str] = []
    observer = SimpleNamespace(
        wants_rows=False,
        failed=lambda topic, code, kind: told.append(code),
        died=lambda topic, reason: told.append(reason),
        event=lambda name, **fields: told.append(name),
    )
    clock, dice = SimpleNamespace(monotonic=lambda: 0.0), SimpleNamespace(random=lambda: 0.5)
    ports = SimpleNamespace(clock=clock, observer=observer, dice=dice)
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(confirm=Confirm.NONE), token=1)
    records = [record(1, topic="a", key="k"), record(2, topic="a", key="l"), record(3, topic="a", key="k")]
    state.lanes.meet(["a"])
    state.ledger.enter(records)
    given = state.gate.admit(records)
    state.lanes.published(given)
    refused = DeliveryFault(own_fault("INVALID_HEADERS"), "a number")
    reports = [Report(records[1], refused, None, None, True)]

    assert state.aftermath.deliveries.unconfirmed(given, reports, 0.0) == [records[2]]
    assert state.settling.ids == [1]
    assert state.aftermath.take(reports, 0.0) == []

    assert told == ["INVALID_HEADERS", "invalid"]
    assert state.settling.known_ids() == {1, 2}
