"""How soon a relay goes on whose producer ends: at once, and later each time where it ends in a row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from outboxd.policy.blame.routes import Route
from outboxd.policy.careful import PlannedEnd
from outboxd.policy.exchange.messages import DeliveryFault, Report, StopRequested
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.relay.ownership import Ownership
from outboxd.relay.publish.producer_ends import IN_A_ROW_SECONDS
from outboxd.relay.state import Ports
from tests.unit.records import record
from tests.unit.test_relay_stopping import FATAL, Bench

FENCED = DeliveryFault(fault_of(KafkaError._FENCED), "fenced")


class Stand:
    """An owner whose database answers at once, on a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loads: list[float] = []
        self.events: list[str] = []
        ports: Any = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(
                event=lambda name, **_: self.events.append(name), database_not_asked=lambda _: None
            ),
            publisher=SimpleNamespace(rebuild=lambda: None, purge=lambda: None),
            lease=SimpleNamespace(give_up=lambda _: None),
            store=SimpleNamespace(begin_load=lambda: self.loads.append(self.now)),
            dice=None,
        )
        self.ownership = Ownership(cast(Ports, ports), RelayLimits(), (), Route(), pipelined=True)
        self.ownership.own(1)
        self.answer()

    def answer(self) -> None:
        """The load that is under way is answered."""
        self.ownership.state.reading = None

    def fail(self, failure: DeliveryFault = FENCED) -> float:
        """The producer ends as soon as it was recovered; return how long nothing is loaded after that."""
        ended_at = self.now
        self.ownership.resolve(failure)
        for at in self.ownership.reading.deadlines():
            self.ownership.reading.fetch(self.now)
            assert self.ownership.state.reading is None, "asked before its time"
            self.now = at
            self.ownership.reading.fetch(at)
        self.answer()
        return self.loads[-1] - ended_at


def test_producers_that_end_in_a_row_are_replaced_later_each_time_up_to_five_seconds() -> None:
    stand = Stand()
    assert [stand.fail() for _ in range(8)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert stand.events.count("producer_rebuilt") == 8


def test_a_producer_that_ends_long_after_the_one_before_is_replaced_at_once() -> None:
    stand = Stand()
    for _ in range(3):
        stand.fail()
    stand.now += IN_A_ROW_SECONDS
    assert stand.fail() == 0.0


def test_a_planned_end_is_told_as_none_of_a_failure_and_ends_no_row_of_them() -> None:
    stand = Stand()
    planned = PlannedEnd(own_fault("NEVER_REPORTED"), "suspects went apart")
    assert [stand.fail(planned) for _ in range(3)] == [0.0] * 3
    assert "producer_rebuilt" not in stand.events
    assert stand.events.count("producer_renewed") == 3
    assert [stand.fail() for _ in range(2)] == [0.0, 0.25]


def test_an_owner_that_stands_by_meanwhile_loads_nothing() -> None:
    stand = Stand()
    stand.fail()
    stand.ownership.resolve(FENCED)
    loads = len(stand.loads)
    stand.ownership.stand_down("the lease could not be renewed in time")
    stand.now += IN_A_ROW_SECONDS
    assert stand.ownership.reading.deadlines() == []
    assert len(stand.loads) == loads


EPOCH = DeliveryFault(fault_of(KafkaError.INVALID_PRODUCER_EPOCH), "an old epoch")


def fail_again(bench: Bench, times: int, *, by_reports: bool = False) -> list[float]:
    """The plain producer ends as soon as it has the record; return how long it takes each time to be replaced."""
    pauses = []
    for _ in range(times):
        while not bench.with_producer:
            bench.turns(1)
        ended_at, rebuilt = bench.now, bench.calls.count("rebuild")
        if by_reports:
            bench.reports += [Report(row, EPOCH, 0, None, False) for row in bench.with_producer]
        else:
            bench.fail()
        while bench.calls.count("rebuild") == rebuilt:
            bench.turns(1)
        pauses.append(round(bench.now - ended_at - 0.05, 2))
    return pauses


@pytest.mark.parametrize("by_reports", [False, True], ids=["fatal", "by reports"])
def test_plain_producers_that_end_in_a_row_are_replaced_later_each_time_up_to_five_seconds(by_reports: bool) -> None:
    bench = Bench(record(1))
    told: list[dict[str, object]] = []
    counted: list[int] = []
    observer = cast(Any, bench.relay.state.ports.observer)
    observer.event = lambda name, **fields: told.append(fields) if name == "producer_rebuilt" else None
    observer.duplicates_possible = counted.append
    pauses = fail_again(bench, 8, by_reports=by_reports)
    assert pauses == pytest.approx([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0], abs=0.051)
    assert [each["error_code"] for each in told] == [(EPOCH if by_reports else FATAL).fault.name] * 8
    assert all("second daemon" in str(each["cause"]) for each in told if by_reports)
    assert counted == [1] * 8

    while not bench.with_producer:
        bench.turns(1)
    bench.turns(round(IN_A_ROW_SECONDS / 0.05))
    assert fail_again(bench, 1) == [0.0]


def test_nothing_is_given_to_a_producer_that_has_failed_and_a_drain_waits_for_no_pause() -> None:
    bench = Bench(record(1))
    fail_again(bench, 6)
    while not bench.with_producer:
        bench.turns(1)
    bench.fail()
    bench.with_producer = []
    bench.pending[2] = record(2, key="other")
    bench.turns(20)
    assert bench.with_producer == []
    assert bench.relay.next_deadline > bench.now, "it rests meanwhile"
    bench.turns(2, StopRequested())
    assert bench.relay.end is not None
    assert bench.relay.end.reason == "stopped"
    assert not bench.given_up["drained"]


@pytest.mark.parametrize("failure", [FENCED, PlannedEnd(own_fault("NEVER_REPORTED"), "suspects went apart")])
def test_an_end_of_the_producer_tells_that_what_waited_under_it_goes_on(failure: DeliveryFault) -> None:
    stand = Stand()
    stand.ownership.state.aftermath.holding.open_breaker("closed", fault_of(29), "no right to write", stand.now)
    stand.fail(failure)
    assert stand.events[:2] == ["breaker_opened", "breaker_closed"]
    assert stand.ownership.state.lanes.breakers.open == {}
