"""Rows that would make a storm wait until what was on its way with them is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.rows.records import FailureHistory, Record
from outboxd.policy.topics.breakers import STORM_KEYS
from outboxd.relay.report.undecided import SILENCE_SECONDS, UNDECIDED_SECONDS
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

REFUSED = DeliveryFault(own_fault("MISSING_KEY"), "compacted")
OF_ROW_ALONE = DeliveryFault(own_fault("INVALID_HEADERS"), "a number")
SENT_BACK = DeliveryFault(own_fault("SENT_BACK"), "another topic's row was refused")


class Bench:
    """A topic of which some rows are on their way to the broker while as many as make a storm are refused."""

    def __init__(self, error: DeliveryFault = REFUSED, rows: int = STORM_KEYS, *, pipelined: bool = False) -> None:
        self.told: list[str] = []
        self.died: list[str] = []
        observer = SimpleNamespace(
            wants_rows=False,
            delivered=lambda *_: None,
            failed=lambda *_: None,
            died=lambda *_: self.died.append("died"),
            acknowledged_after=lambda *_: None,
            event=lambda name, **fields: self.told.append(name),
        )
        clock, dice = SimpleNamespace(monotonic=lambda: 0.0), SimpleNamespace(random=lambda: 0.5)
        ports = SimpleNamespace(clock=clock, observer=observer, dice=dice, publisher=None)
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1, pipelined=pipelined)
        self.state.lanes.meet(["a"])
        self.on_their_way = self.give(range(1, 4))
        refused = self.give(range(11, 11 + rows))
        self.take([Report(each, error, None, None, True) for each in refused], 0.0)

    def give(self, ids: range) -> list[Record]:
        records = [record(each, topic="a", key=str(each)) for each in ids]
        self.state.ledger.enter(records)
        given = self.state.gate.admit(records)
        self.state.lanes.published(given)
        return given

    def take(self, reports: list[Report], now: float) -> None:
        self.state.aftermath.take(reports, now)


def test_a_silent_broker_makes_no_storm_of_rows_that_were_refused_meanwhile() -> None:
    bench = Bench()
    bench.take([], 3 * UNDECIDED_SECONDS)
    bench.take([Report(bench.on_their_way[0], REFUSED, 0, None)], 4 * UNDECIDED_SECONDS)
    assert bench.told == []

    bench.take([Report(bench.on_their_way[1], None, 0, 7)], 5 * UNDECIDED_SECONDS)

    assert bench.told == []
    assert [each.id for each in bench.state.aftermath.suspects] == [10 + STORM_KEYS, 1]
    assert not bench.state.aftermath.undecided


def test_once_all_that_was_on_its_way_was_refused_too_it_is_a_storm_though_more_is_sent() -> None:
    bench = Bench()
    bench.give(range(101, 103))

    bench.take([Report(each, REFUSED, 0, None) for each in bench.on_their_way], 2 * UNDECIDED_SECONDS)

    assert bench.told == ["storm_guard"]


def test_a_partition_that_stands_still_for_long_keeps_no_storm_from_being_one() -> None:
    bench = Bench()
    bench.take([], SILENCE_SECONDS / 2)
    assert bench.told == []

    bench.take([], SILENCE_SECONDS)

    assert bench.told == ["storm_guard"]
    assert not bench.state.aftermath.undecided


def test_rows_refused_for_what_no_topic_can_mend_all_die_once_a_neighbour_is_delivered_however_many_they_are() -> None:
    bench = Bench(OF_ROW_ALONE, rows=5 * STORM_KEYS)
    assert len(bench.died) == STORM_KEYS - 1

    bench.take([Report(each, None, 0, 7) for each in bench.on_their_way], 1.0)

    assert len(bench.died) == 5 * STORM_KEYS
    assert bench.told == []
    assert not bench.state.aftermath.undecided
    assert not bench.state.aftermath.suspects


def test_rows_whose_verdict_was_asked_for_failed_before_the_neighbours_that_were_delivered_meanwhile() -> None:
    bench = Bench(rows=0)
    bench.take([Report(each, None, 0, 7) for each in bench.on_their_way], 1.0)
    misplaced = DeliveryFault(own_fault("UNKNOWN_PARTITION"), "it has 1", failed_at=0.5)
    refused = bench.give(range(11, 11 + 5 * STORM_KEYS))

    bench.take([Report(each, misplaced, 7, None, True) for each in refused], 1.5)
    bench.take([], 1.6)

    assert len(bench.died) == 5 * STORM_KEYS
    assert bench.told == []


def test_rows_refused_for_what_no_topic_can_mend_are_a_storm_where_nothing_is_delivered() -> None:
    bench = Bench(OF_ROW_ALONE, rows=5 * STORM_KEYS)

    bench.take([Report(each, OF_ROW_ALONE, 0, None) for each in bench.on_their_way], 1.0)

    assert bench.told == ["storm_guard"]
    assert len(bench.died) == STORM_KEYS - 1


def test_one_row_of_a_storm_goes_to_retry_without_an_attempt_so_that_an_owner_to_come_knows_of_the_storm() -> None:
    bench = Bench()
    bench.take([], SILENCE_SECONDS)
    assert bench.told == ["storm_guard"]
    settlement = bench.state.settling.take()
    assert settlement is not None
    assert [topic for topic, _ in settlement.storms] == ["a"]
    ((record_id, retry),) = settlement.retries
    assert (retry.attempts, retry.fault) == (0, REFUSED.fault)
    assert record_id in bench.state.ledger.records, "until that is written"


def test_rows_whose_attempts_are_used_up_are_no_storm_however_many_they_are() -> None:
    """Others of their topic are delivered, else nothing of what passes would count as an attempt."""
    bench = Bench(rows=0)
    failed = bench.give(range(100, 100 + 2 * STORM_KEYS))
    bench.take([Report(bench.on_their_way[0], None, 0, 7)], 1.0)
    attempts_max = Route().retry.max_attempts
    bench.state.aftermath.histories.by_id.update({each.id: FailureHistory(attempts_max - 1) for each in failed})

    timed_out = DeliveryFault(fault_of(7), "timed out")
    bench.take([Report(each, timed_out, 0, None, True) for each in failed], 1.0)

    assert len(bench.died) == 2 * STORM_KEYS
    assert (bench.told, bench.state.aftermath.undecided) == ([], [])


def test_what_an_aborted_transaction_gave_back_is_waited_for_before_its_topic_storms() -> None:
    bench = Bench(OF_ROW_ALONE, rows=5 * STORM_KEYS, pipelined=True)
    for seconds in (1.0, SILENCE_SECONDS, 1.5 * SILENCE_SECONDS):
        # Another topic's row is refused, and the transaction is aborted each time.
        bench.take([Report(each, SENT_BACK, None, None) for each in bench.on_their_way], seconds)
        bench.take([], seconds + 2 * UNDECIDED_SECONDS)
        bench.state.lanes.published(bench.on_their_way)
        bench.take([], seconds + 3 * UNDECIDED_SECONDS)
    assert bench.told == []

    bench.take([Report(each, None, 0, 7) for each in bench.on_their_way], 2 * SILENCE_SECONDS)

    assert bench.told == []
    assert len(bench.died) == 5 * STORM_KEYS


def test_what_is_given_back_and_never_goes_again_keeps_no_storm_from_being_one_for_long() -> None:
    bench = Bench(OF_ROW_ALONE, rows=5 * STORM_KEYS, pipelined=True)
    bench.take([Report(each, SENT_BACK, None, None) for each in bench.on_their_way], 1.0)

    bench.take([], 1.0 + SILENCE_SECONDS)

    assert bench.told == ["storm_guard"]
