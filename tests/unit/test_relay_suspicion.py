"""What is known of rows that were refused alone, by what others of their batch met."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import STORM_KEYS
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.report.suspicion import BATCH_MATES_SECONDS, Finding, Suspicions
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

CODE = 32
REFUSED = DeliveryFault(fault_of(CODE), "refused")


def passed(suspicions: Suspicions, record_id: int, topic: str, now: float) -> None:
    suspicions.suspect(record_id, CODE, now)
    suspicions.passed(Report(record(record_id, topic=topic), None, 0, 0, True), now)


def finding(suspicions: Suspicions, record_id: int, topic: str) -> Finding:
    report = Report(record(record_id, topic=topic), REFUSED, None, None, True)
    return suspicions.find(report, CODE, 1.0, 9.0, others_in_flight=False)


def test_that_a_suspect_passed_is_remembered_of_a_bounded_number_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.relay.report.suspicion.PASSED_MAX", 2)
    suspicions = Suspicions()
    for place, topic in enumerate(["a", "b", "a", "c"]):
        passed(suspicions, place, topic, 2.0 + place)

    assert finding(suspicions, 10, "a") is Finding.AGAIN
    assert finding(suspicions, 10, "a") is Finding.GUILTY
    assert finding(suspicions, 11, "b") is Finding.OPEN
    assert finding(suspicions, 12, "c") is Finding.AGAIN


def refused(record_id: int, topic: str = "a", *, alone: bool = True) -> Report:
    return Report(record(record_id, topic=topic, key=str(record_id)), REFUSED, None, None, alone)


def test_a_row_that_is_refused_alone_waits_for_its_batch_mates_and_for_a_second_at_most() -> None:
    suspicions = Suspicions()
    suspicions.suspect(1, CODE, 1.0)

    def finding_at(seconds: float, *, others_in_flight: bool) -> Finding:
        return suspicions.find(refused(1), CODE, 2.0, 2.0 + seconds, others_in_flight=others_in_flight)

    assert finding_at(0.0, others_in_flight=True) is Finding.WAIT
    assert finding_at(0.9 * BATCH_MATES_SECONDS, others_in_flight=True) is Finding.WAIT
    assert finding_at(BATCH_MATES_SECONDS, others_in_flight=True) is Finding.OPEN
    assert finding_at(0.0, others_in_flight=False) is Finding.OPEN


@pytest.mark.parametrize(
    ("mate", "code", "alone", "passed_at"),
    [
        (refused(2, "another"), CODE, True, 3.0),
        (refused(2), 87, True, 3.0),
        (refused(2), CODE, False, 3.0),
        (refused(2), CODE, True, 1.0),
    ],
    ids=["of another topic", "of another code", "that passed with others", "that passed before"],
)
def test_a_row_is_not_to_blame_for_what_one_proves_that_is_no_mate_of_its_batch(
    mate: Report, code: int, alone: bool, passed_at: float
) -> None:
    suspicions = Suspicions()
    suspicions.suspect(1, CODE, 1.0)
    suspicions.suspect(2, code, 1.0)

    suspicions.passed(mate._replace(error=None, alone=alone), passed_at)

    assert suspicions.find(refused(1), CODE, 4.0, 4.0, others_in_flight=False) is Finding.OPEN


@pytest.mark.parametrize("how", ["it passed", "it left memory", "its batch was refused once more"])
def test_a_row_is_to_blame_only_for_a_refusal_that_follows_the_last_time_it_was_sent_alone_for_that(how: str) -> None:
    suspicions = Suspicions()
    suspicions.suspect(1, CODE, 1.0)
    passed(suspicions, 2, "a", 2.0)
    assert suspicions.find(refused(1), CODE, 3.0, 3.0, others_in_flight=False) is Finding.AGAIN
    assert suspicions.is_sent_again(1)

    if how == "it passed":
        suspicions.passed(refused(1)._replace(error=None), 3.0)
    elif how == "it left memory":
        suspicions.forget(1)
    else:
        suspicions.suspect(1, CODE, 3.0)

    assert not suspicions.is_sent_again(1)
    assert suspicions.find(refused(1), CODE, 4.0, 4.0, others_in_flight=False) is Finding.OPEN


class Bench:
    """A topic of which a batch was refused with what may be a row's own fault, or that of a wrong clock."""

    def __init__(self, *ids: int) -> None:
        self.told: list[str] = []
        observer = SimpleNamespace(
            wants_rows=False,
            delivered=lambda *_: None,
            failed=lambda *_: None,
            died=lambda *_: None,
            acknowledged_after=lambda *_: None,
            event=lambda name, **_: self.told.append(name),
        )
        clock, dice = SimpleNamespace(monotonic=lambda: 0.0), SimpleNamespace(random=lambda: 0.5)
        ports = SimpleNamespace(clock=clock, observer=observer, dice=dice, publisher=None)
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1)
        self.state.lanes.meet(["a"])
        records = [refused(each).record for each in ids]
        self.state.ledger.enter(records)
        assert self.state.gate.admit(records) == records
        self.state.lanes.published(records)
        self.report([refused(each, alone=False) for each in ids], 0.0)

    def report(self, reports: Sequence[Report], now: float) -> None:
        self.state.aftermath.take(reports, now)

    def send_alone(self) -> list[int]:
        """The producer takes all suspects; return which these are."""
        suspects: list[Record] = list(self.state.aftermath.suspects)
        self.state.aftermath.suspects.clear()
        self.state.lanes.published(suspects)
        return [each.id for each in suspects]

    @property
    def dead(self) -> list[int]:
        settlement = self.state.settling.take()
        return [] if settlement is None else [record_id for record_id, _ in settlement.dead]


def test_of_a_batch_that_was_refused_for_one_rows_time_that_row_dies_and_the_others_are_delivered() -> None:
    bench = Bench(1, 2, 3)
    assert bench.send_alone() == [1, 2, 3]
    bench.report([refused(2)], 0.1)
    assert bench.send_alone() == [], "its mates are on their way"

    bench.report([refused(1)._replace(error=None, partition=0, offset=7)], 0.2)
    assert bench.send_alone() == [2], "a mate passed: once more, alone"
    bench.report([refused(3)._replace(error=None, partition=0, offset=8), refused(2)], 0.3)

    assert bench.send_alone() == []
    assert list(bench.state.settling.ids) == [1, 3]
    assert bench.dead == [2]
    assert not bench.state.topics.held


def test_so_many_rows_to_blame_with_none_delivered_between_are_a_storm_all_the_same() -> None:
    bench = Bench(*range(1, STORM_KEYS + 2))
    bench.send_alone()
    bench.report([refused(1)._replace(error=None, partition=0, offset=7)], 0.1)
    guilty = [refused(each) for each in range(2, STORM_KEYS + 2)]
    bench.report(guilty, 0.2)
    assert len(bench.send_alone()) == STORM_KEYS

    bench.report(guilty, 0.3)

    assert bench.state.topics.held == {"a": {HoldReason.STORM}}
    assert bench.told == ["storm_guard"]
    assert not bench.state.aftermath.undecided
    assert len(bench.dead) == STORM_KEYS - 1


def test_where_each_row_of_a_batch_is_refused_alone_too_none_dies_and_the_topic_waits() -> None:
    bench = Bench(1, 2, 3)
    bench.send_alone()
    for record_id in (1, 2):
        bench.report([refused(record_id)], 0.1)
        assert not bench.state.topics.held

    bench.report([refused(3)], 0.2)

    assert bench.state.topics.held == {"a": {HoldReason.BREAKER}}
    assert sorted(bench.state.held.by_id) == [1, 2, 3]
    assert bench.dead == []
    assert (bench.told, len(bench.state.ledger)) == (["breaker_opened"], 0)


def test_a_mate_that_is_not_answered_keeps_a_refused_row_from_its_end_for_a_second_only() -> None:
    bench = Bench(1, 2)
    bench.send_alone()
    bench.report([refused(1)], 0.1)
    bench.report([], 0.9)
    assert not bench.state.topics.held

    bench.report([], 0.2 + BATCH_MATES_SECONDS)

    assert bench.state.topics.held == {"a": {HoldReason.BREAKER}}
    assert not bench.state.aftermath.undecided
