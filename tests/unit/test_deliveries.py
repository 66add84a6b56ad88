"""What was acknowledged is counted by topic, also where nobody waits for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import STORM_KEYS
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
    ports = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0), observer=observer, dice=None, publisher=None)
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


class Bench:
    """What becomes of records that nobody confirms, and what is told of that."""

    def __init__(self) -> None:
        self.told: list[str] = []
        observer = SimpleNamespace(
            wants_rows=False,
            delivered=lambda *_: None,
            failed=lambda topic, code, kind: self.told.append(code),
            died=lambda topic, reason: self.told.append(reason),
            event=lambda name, **fields: self.told.append(name),
        )
        clock, dice = SimpleNamespace(monotonic=lambda: 0.0), SimpleNamespace(random=lambda: 0.5)
        ports = SimpleNamespace(clock=clock, observer=observer, dice=dice, publisher=None)
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(confirm=Confirm.NONE), token=1)
        self.state.lanes.meet(["a"])

    def give(self, *records: Record) -> list[Record]:
        """Give the producer what may go of these."""
        self.state.ledger.enter(records)
        given = self.state.gate.admit(records)
        self.state.lanes.published(given)
        return given


REFUSED = DeliveryFault(own_fault("INVALID_HEADERS"), "a number")


def test_a_fire_and_forget_record_that_the_producer_refuses_is_not_settled_and_has_its_own_outcome() -> None:
    bench = Bench()
    state = bench.state
    records = [record(1, topic="a", key="k"), record(2, topic="a", key="l"), record(3, topic="a", key="k")]
    given = bench.give(*records)
    reports = [Report(records[1], REFUSED, None, None, True)]

    assert state.aftermath.deliveries.unconfirmed(given, reports, 0.0) == [records[2]]
    assert state.settling.ids == [1]
    assert state.aftermath.take(reports, 0.0) == []

    assert bench.told == ["INVALID_HEADERS", "invalid"]
    assert state.settling.known_ids() == {1, 2}


def test_refusals_between_fire_and_forget_deliveries_are_no_storm() -> None:
    bench = Bench()
    for first_id in range(1, 2 * STORM_KEYS + 10, 2):
        given = bench.give(record(first_id, topic="a", key=None), record(first_id + 1, topic="a", key=None))
        reports = [Report(given[0], REFUSED, None, None, True)]
        bench.state.aftermath.deliveries.unconfirmed(given, reports, 0.0)
        bench.state.aftermath.take(reports, 0.0)
        bench.state.aftermath.take([Report(given[1], None, 0, first_id)], 0.0)
    assert set(bench.told) == {"INVALID_HEADERS", "invalid"}
    assert not bench.state.aftermath.undecided


def test_what_a_fire_and_forget_record_had_failed_with_is_forgotten_once_the_producer_took_it() -> None:
    bench = Bench()
    bench.state.aftermath.histories.failed[1] = 0.0, 3
    given = bench.give(record(1, topic="a"))
    bench.state.aftermath.deliveries.unconfirmed(given, (), 0.0)
    assert not bench.state.aftermath.histories.failed


def test_a_fire_and_forget_record_that_the_cluster_is_asked_about_has_its_own_outcome_when_the_answer_is_there() -> (
    None
):
    bench = Bench()
    state = bench.state
    asked_about, other, behind = record(1, topic="a", key="k"), record(2, topic="a", key="l"), record(3, topic="a")
    given = bench.give(asked_about, other, behind)

    assert state.aftermath.deliveries.unconfirmed(given, (), 0.0, {1}) == []
    assert state.settling.ids == [2]
    # Reports of others come before it is answered.
    assert state.aftermath.take([Report(other, None, 0, 2)], 0.0) == []
    lacking = DeliveryFault(own_fault("UNKNOWN_PARTITION"), "there are two")
    state.aftermath.take([Report(asked_about, lacking, 7, None, True)], 0.0)

    assert bench.told == ["UNKNOWN_PARTITION", "invalid"]
    assert state.settling.known_ids() == {1, 2}
    assert state.lanes.rows_in_flight == 0


def test_a_fire_and_forget_record_that_goes_again_by_another_producer_is_lost_when_that_fails_later() -> None:
    bench = Bench()
    deliveries = bench.state.aftermath.deliveries
    given = bench.give(record(1, topic="a"))
    deliveries.unconfirmed(given, (), 0.0, {1})
    deliveries.forget_refused()

    deliveries.unconfirmed(given, (), 0.0)
    assert bench.state.settling.ids == [1]
    assert deliveries.count_losses([Report(given[0], REFUSED, 7, None, True)], 0.0) == []
    assert bench.told == ["INVALID_HEADERS", "record_lost"]


def test_a_late_failure_of_a_fire_and_forget_record_is_not_that_of_another_row_of_its_id() -> None:
    bench = Bench()
    state = bench.state
    lost = record(1, topic="a")
    another = lost._replace(event_id="another event")
    state.aftermath.deliveries.unconfirmed(bench.give(lost), (), 0.0)
    state.settling.take()
    state.settling.done()
    state.ledger.leave([1])
    # The database crashed, lost the row with its mark, and gave the id once more.
    reports = [Report(lost, REFUSED, None, None, True)]
    state.aftermath.deliveries.unconfirmed(bench.give(another), reports, 0.0)

    assert state.settling.ids == [1]
    assert state.aftermath.take(reports, 0.0) == []
    assert bench.told == ["INVALID_HEADERS", "record_lost"]
    assert state.settling.known_ids() == {1}
    assert state.aftermath.take([Report(another, None, 0, 7)], 0.0) == []
    assert state.lanes.rows_in_flight == 0
