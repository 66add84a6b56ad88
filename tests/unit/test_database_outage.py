"""A database that was away: whoever asked in vain says so, and it is up again once that one is answered, or asks no
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.daemon.database_watch import STEADY_SECONDS, DatabaseWatch
from outboxd.observability.logs import Log
from outboxd.observability.metrics import Metrics
from outboxd.observability.observer import DaemonObserver
from outboxd.observability.status import GAUGES, StatusBoard
from outboxd.policy.exchange.messages import Event, LeaseGranted, LeaseLost, Report, Settled, SettleFailed
from outboxd.policy.exchange.reads import Arrived, Fetched, FetchFailed, Loaded, Swept
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.rows.records import Record
from outboxd.relay.relay import Ports, Relay, RelayLimits
from tests.unit.records import record

UTC_NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """A relay that its observer and the status board watch, a broker that takes all, and a database that answers each
    question at once, or fails at some.
    """

    def __init__(self, *rows: Record) -> None:
        self.rows = list(rows)
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.mail: list[Event] = [LeaseGranted(1)]
        self.reports: list[Report] = []
        self.now = 100.0
        self.board = StatusBoard(monotonic=lambda: self.now)
        self.told: list[object] = []
        """During what the database failed, as an alert says it."""
        observer = DaemonObserver(Log(lambda _: None, "json"), Metrics(self.board), self.board, self.alert)
        clock = SimpleNamespace(monotonic=lambda: self.now)
        dice = SimpleNamespace(random=lambda: 0.5)
        lease = SimpleNamespace(trusted_until=lambda: float("inf"), give_up=lambda *_, **__: None)
        mailbox = SimpleNamespace(take=self.take, wait=lambda _: None)
        ports = Ports(*(cast(Any, port) for port in (self, self, lease, mailbox, clock, dice, observer)))
        self.relay = Relay(ports, RelayLimits())

    def turns(self, count: int = 200) -> None:
        """Let the relay make turns, for as many tenths of a second."""
        for _ in range(count):
            self.now += 0.1
            self.relay.turn()

    def take(self) -> list[Event]:
        mail, self.mail = self.mail, []
        return mail

    def alert(self, name: str, fields: Mapping[str, object]) -> None:
        if name == "database_failed":
            self.told.append(fields["during"])

    def answer(self, question: str, answer: Event) -> None:
        """Answer, or fail."""
        self.asked.append(question)
        self.mail.append(FetchFailed("gone") if question in self.failing else answer)

    # The database's port, and the broker's.

    def begin_load(self) -> None:
        self.answer("load", Loaded([], [], 0))

    def begin_fetch(self, *_: object) -> None:
        rows, self.rows = ([], self.rows) if "fetch" in self.failing else (self.rows, [])
        fetched = Fetched(rows, 0)
        self.answer("fetch", Arrived(lambda: fetched) if rows else fetched)

    def begin_sweep(self, *_: object) -> None:
        self.answer("sweep", Swept([], None))

    def begin_settle(self, settlement: Settlement, _token: int) -> None:
        self.asked.append("settle")
        is_failing = "settle" in self.failing
        self.mail.append(SettleFailed(settlement, "gone") if is_failing else Settled(settlement, settlement.rows))

    def publish(self, records: Sequence[Record], _start: int) -> int:
        self.reports += [Report(each, None, 0, each.id) for each in records]
        return len(records)

    def take_reports(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def committed(self) -> None:
        return None

    def __getattr__(self, _: str) -> Any:
        return lambda *_arguments, **_fields: None


def test_the_database_is_up_once_a_new_owner_has_loaded_from_it() -> None:
    bench = Bench()
    assert not bench.board.database.is_up
    bench.turns(2)
    assert bench.board.database.is_up


@pytest.mark.parametrize("question", ["load", "fetch", "sweep", "settle"])
def test_whichever_question_failed_the_database_is_up_again_once_it_answers(question: str) -> None:
    bench = Bench(record(1))
    bench.failing = {question}
    while bench.told != [question]:
        bench.turns(1)
    assert not bench.board.database.is_up
    bench.failing = set()
    bench.turns()
    assert bench.board.database.is_up


def test_an_owner_that_owns_anew_after_an_outage_finds_the_database_up_though_nothing_is_pending() -> None:
    bench = Bench()
    bench.turns()
    bench.failing = {"fetch", "load", "sweep"}
    bench.turns()
    assert not bench.board.database.is_up
    bench.mail += [LeaseLost("the connection is gone")]
    bench.turns(2)
    bench.failing = set()
    bench.mail += [LeaseGranted(2)]
    bench.turns()
    assert bench.relay.state.token == 2
    assert bench.board.database.is_up


def test_an_owner_that_became_a_standby_waits_for_no_answer_and_the_next_of_anybody_says_that_it_is_up() -> None:
    bench = Bench(record(1))
    bench.failing = {"settle"}
    bench.turns()
    bench.failing |= {"fetch", "load", "sweep"}
    bench.turns()
    assert not bench.board.database.is_up
    bench.mail += [LeaseLost("the connection is gone")]
    bench.turns()
    assert not bench.board.database.is_up, "nobody was answered yet"
    bench.board.database_answers(False, "refused", asked_by=[GAUGES])
    assert bench.board.database.cause == "refused"
    bench.board.database_answers(True, asked_by=[GAUGES])
    assert bench.board.database.is_up


def test_one_that_is_answered_does_not_hide_that_another_asks_in_vain() -> None:
    bench = Bench(record(1))
    bench.failing = {"settle"}
    bench.turns()
    bench.board.database_answers(True, asked_by=[GAUGES])
    assert bench.asked.count("fetch") > 1
    assert not bench.board.database.is_up


def test_what_could_not_be_measured_as_a_standby_is_over_with_the_first_answer_to_the_owner() -> None:
    bench = Bench(record(1))
    bench.board.database_answers(False, "refused", asked_by=[GAUGES])
    assert not bench.board.database.is_up
    bench.turns(2)
    assert bench.board.database.is_up


def test_that_the_database_answers_again_is_told_once_and_only_when_it_has_for_a_while() -> None:
    now, told = 100.0, list[str]()
    board = StatusBoard(monotonic=lambda: now)
    watch = DatabaseWatch(board, lambda name, **_: told.append(name), lambda: None, lambda: None, {})

    def pass_by(seconds: float) -> None:
        nonlocal now
        for _ in range(round(4 * seconds)):
            now += 0.25
            watch.look(is_owner=True)

    board.database_answers(True)
    pass_by(10)
    for during in ("settle", "fetch"):
        board.database_answers(False, "gone", asked_by=[during])
        pass_by(1)
        board.database_answers(True, asked_by=[during])
        pass_by(STEADY_SECONDS / 2)
    assert told == []
    pass_by(10)
    assert told == ["database_answers"]
