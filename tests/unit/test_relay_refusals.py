"""Settlements that the database refuses for one row's sake: all others are settled, that row is told and tried on."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason, Retry
from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.messages import ProgressRow, Recovered
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import own_fault
from outboxd.relay.fetch.orders import Orders
from outboxd.relay.fetch.recovering import Recovering
from outboxd.relay.memory.refusals import TRIES_A_SECOND_MAX
from outboxd.relay.ports import DueReplay, Fetched, Loaded, Settled, SettleFailed
from outboxd.relay.settle.writing import ASIDE_TOLD_SECONDS, REFUSALS_MAX, REFUSED, WRITES, Writing
from outboxd.relay.state import TRANSACTIONS_WAITING, Ports, RelayLimits, State
from outboxd.relay.watch import Watch
from tests.unit.records import record

STALL_SECONDS = RelayLimits().stall_seconds
WATCH_SECONDS = 1.0
"""So often the watch looks."""

DEATH = DeadLetter(DeathReason.INVALID, own_fault("INVALID_HEADERS"), "why", 1, holds_key=False)
RETRY = Retry(own_fault("IN_FLIGHT_TOO_OLD"), "why", 1, 0.5)


class Bench:
    """The writing side on a database in which rows are locked."""

    def __init__(self, *, pipelined: bool = False) -> None:
        self.now = 100.0
        self.locked: set[int] = set()
        self.locked_replays: set[int] = set()
        self.is_table_locked: bool = False
        self.statements: list[Settlement] = []
        self.settled_ids: list[int] = []
        self.transactions: list[int] = []
        self.restated: list[list[ProgressRow]] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.answered: list[object] = []
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(
                event=lambda name, **fields: self.events.append((name, fields)),
                phase=lambda *_: None,
                database_answered=self.answered.append,
            ),
            store=SimpleNamespace(begin_settle=lambda settlement, _token: self.statements.append(settlement)),
            publisher=SimpleNamespace(
                settled=self.transactions.append, restate=self.restated.append, begin_recover=lambda *_: None
            ),
            dice=None,
        )
        limits = RelayLimits(max_in_flight_rows=10_000, batch_rows=5_000)
        self.state = State(cast(Ports, cast(Any, ports)), limits, (), Route(), token=1, pipelined=pipelined)
        self.writing = Writing(self.state)
        self.watch = Watch(self.state)

    def deliver(self, *ids: int) -> None:
        self.state.ledger.enter([record(record_id, key=None) for record_id in ids])
        settling = self.state.settling
        settling.ids += ids
        settling.partitions += [0] * len(ids)
        settling.offsets += ids
        settling.first_at = self.now

    def _answer(self, settlement: Settlement) -> None:
        outcomes = (*settlement.retries, *settlement.dead)
        ids = {*settlement.delivered_ids, *(record_id for record_id, _ in outcomes)}
        replays = {replay[0] for replay in settlement.recovered_replays}
        if self.is_table_locked or ids & self.locked or replays & self.locked_replays:
            self.writing.on_failed(SettleFailed(settlement, "locked", refused=True))
            return
        self.settled_ids += settlement.delivered_ids
        assert self.writing.on_settled(Settled(settlement, settlement.rows))

    def run(self, seconds: float = 0.1) -> int:
        """Let the time pass; return how many statements were given."""
        until, before = self.now + seconds, len(self.statements)
        while self.now < until:
            self.writing.settle(self.now)
            under_way = self.state.settling.under_way
            if under_way is not None:
                self._answer(under_way)
            due = self.writing.deadlines(self.now)
            self.now = max(self.now + 0.001, min([until, *due]))
        return len(self.statements) - before

    def commit(self, transaction: int, *ids: int, restates: bool = False) -> None:
        """A Kafka transaction delivered these."""
        rows = self.restated[-1] if restates else []
        self.deliver(*ids)
        self.state.settling.mark(transaction)
        self.state.settling.refusals.restated(transaction, rows)

    def told(self, name: str) -> list[dict[str, object]]:
        return [fields for told, fields in self.events if told == name]


def test_a_row_that_cannot_be_settled_is_found_by_parting_and_all_others_are_settled() -> None:
    bench = Bench()
    bench.locked = {1234}
    bench.deliver(*range(1, 5_001))
    # 13 halvings of two pieces, the first settlement, and what is tried again meanwhile.
    assert bench.run(0.09) <= 30

    assert sorted(bench.settled_ids) == [row for row in range(1, 5_001) if row != 1234]
    assert list(bench.state.ledger.records) == [1234]
    assert bench.told("row_not_settled") == [
        {"row": "the row 1234", "later": "sent again", "cause": "locked", "rows": 1, "others": "go on"}
    ]
    assert not bench.told("database_failed")
    places = {
        row: place
        for each in bench.statements
        for row, place in zip(each.delivered_ids, each.delivered_offsets, strict=True)
    }
    assert all(row == place for row, place in places.items())


def test_what_is_delivered_later_is_settled_while_a_row_is_set_aside_and_the_row_once_it_can_be() -> None:
    bench = Bench()
    bench.locked = {1}
    bench.deliver(1, 2)
    bench.run()
    bench.deliver(3)
    bench.run()
    assert bench.settled_ids == [2, 3]
    assert bench.state.settling.known_ids() == {1}
    assert bench.run(20.0) <= 15, "it is tried again with a pause that grows"

    bench.locked = set()
    bench.run(2.1)
    assert bench.settled_ids == [2, 3, 1]
    assert bench.state.settling.is_empty
    assert not bench.state.ledger.records
    assert len(bench.told("unsettled_rows_settled")) == 1


def test_a_row_that_was_settled_is_not_named_as_refused_when_others_are_later() -> None:
    bench = Bench()
    bench.locked = {1}
    bench.deliver(1)
    bench.run(1.0)
    assert bench.state.settling.refusals.last_told == "the row 1: locked"
    bench.locked = set()
    bench.run(10.0)
    bench.is_table_locked = True
    bench.deliver(2, 3)
    while bench.state.settling.refusals.is_empty:
        bench.run(0.001)
    assert not bench.state.settling.refusals.last_told


def test_rows_that_are_set_aside_are_told_once_a_minute() -> None:
    bench = Bench()
    bench.locked = set(range(1, 200, 2))
    bench.deliver(*range(1, 201))
    bench.run(ASIDE_TOLD_SECONDS / 2)
    assert sorted(bench.settled_ids) == list(range(2, 201, 2))
    assert len(bench.told("row_not_settled")) == 1
    bench.run(ASIDE_TOLD_SECONDS)
    assert [each["rows"] for each in bench.told("row_not_settled")][1:] == [100]


def test_many_refused_rows_keep_no_server_busy_and_are_settled_soon_after_they_can_be() -> None:
    bench, refused = Bench(), 200
    bench.locked = set(range(1, 2 * refused, 2))
    bench.deliver(*range(1, 2 * refused + 1))
    bench.run(60.0)
    assert sorted(bench.settled_ids) == list(range(2, 2 * refused + 1, 2))
    assert bench.state.settling.refusals.are_stuck
    assert max(bench.run(1.0) for _ in range(60)) <= TRIES_A_SECOND_MAX + 1, "at no time many at once"

    # That somebody let go of one of them says nothing of the others: they are tried anew, and then no more than before.
    bench.locked.remove(101)
    bench.run(refused / TRIES_A_SECOND_MAX + 1.0)
    assert 101 in bench.settled_ids
    bench.run(60.0)
    assert bench.run(60.0) <= 60 * TRIES_A_SECOND_MAX + 20

    bench.locked = set()
    bench.run(1.0)
    assert sorted(bench.settled_ids) == list(range(1, 2 * refused + 1))
    assert bench.state.settling.is_empty


def test_a_locked_table_is_told_as_a_failed_database_and_keeps_no_server_busy() -> None:
    bench = Bench()
    bench.is_table_locked = True
    bench.deliver(*range(1, 5_001))
    assert bench.run(1.0) <= TRIES_A_SECOND_MAX + REFUSALS_MAX
    assert max(bench.run(1.0) for _ in range(60)) <= TRIES_A_SECOND_MAX + 1
    assert [each["during"] for each in bench.told("database_failed")] == [REFUSED]
    assert len(bench.told("row_not_settled")) == 2, "once a minute"

    bench.is_table_locked = False
    bench.run(3.0)
    assert sorted(bench.settled_ids) == list(range(1, 5_001))
    assert bench.state.settling.is_empty
    assert bench.answered == [WRITES]


def test_a_row_that_is_tried_as_the_lease_is_lost_is_not_told_as_settled() -> None:
    bench = Bench()
    bench.locked = {1}
    bench.deliver(1)
    bench.run(0.05)
    bench.now += 3.0
    bench.writing.settle(bench.now)
    assert not bench.writing.on_settled(Settled(bench.statements[-1], 0, fenced=True))
    assert not bench.told("unsettled_rows_settled")


def test_a_transaction_is_settled_once_all_its_rows_are_with_those_that_were_set_aside() -> None:
    bench = Bench()
    bench.locked = {2}
    bench.deliver(1, 2, 3)
    bench.state.settling.mark(7)
    bench.run()
    bench.deliver(4)
    bench.state.settling.mark(8)
    bench.run()
    assert (sorted(bench.settled_ids), bench.transactions) == ([1, 3, 4], [])

    bench.locked = set()
    bench.run(2.1)
    assert (sorted(bench.settled_ids), bench.transactions) == ([1, 2, 3, 4], [8])


def test_once_a_later_transaction_states_a_refused_row_again_those_before_it_are_settled() -> None:
    bench = Bench(pipelined=True)
    bench.locked = {2}
    bench.commit(7, 1, 2, 3)
    bench.run()
    assert [[row.outbox_id for row in rows] for rows in bench.restated] == [[2]]
    assert bench.told("row_not_settled")[0]["later"] == "not sent again"
    bench.commit(8, 4)
    bench.run()
    assert bench.transactions == []

    bench.commit(9, 5, restates=True)
    bench.commit(10, 6)
    bench.run()
    assert bench.transactions == [8], "the only other record that states the row is that of 9"

    bench.locked = set()
    bench.run(3.0)
    assert sorted(bench.settled_ids) == [1, 2, 3, 4, 5, 6]
    assert bench.transactions == [8, 10]
    assert bench.restated[1:] == [[]]


@pytest.mark.parametrize("neighbours", [0, 1])
def test_transactions_are_settled_though_a_row_of_each_is_refused(neighbours: int) -> None:
    bench = Bench(pipelined=True)
    for number in range(1, 61):
        bench.locked.add(number)
        bench.commit(number, number, *range(1_000 + number, 1_000 + number + neighbours), restates=number > 1)
        bench.run()
        assert number - max(bench.transactions, default=0) <= 2
    assert len(bench.settled_ids) == 60 * neighbours


def test_an_outcome_that_no_progress_record_has_keeps_no_transaction_from_being_settled() -> None:
    bench = Bench(pipelined=True)
    bench.locked = {2}
    bench.state.ledger.enter([record(2, key=None)])
    bench.state.settling.dead(2, DEATH)
    bench.commit(7, 1)
    bench.run()
    assert (bench.settled_ids, bench.transactions, bench.restated) == ([1], [7], [])
    assert bench.told("row_not_settled")[0]["later"] == "sent again"


def test_reading_begins_while_a_row_that_was_delivered_before_is_refused_and_does_not_show_it() -> None:
    bench = Bench(pipelined=True)
    bench.locked = {1}
    recovering = Recovering(bench.state)
    recovering.begin(Loaded([], [], 5_000))
    recovering.take(Recovered(5, [ProgressRow(1, 0, 10, False, 11), ProgressRow(2, 0, 20, False, 22)]))
    seen = [recovering.is_done]
    bench.run()
    seen.append(recovering.is_done)
    assert (bench.settled_ids, bench.transactions, seen) == ([2], [], [False, True])
    assert bench.state.ledger.unknown([record(1), record(3)]) == [record(3)]
    assert bench.restated == [[ProgressRow(1, 0, 10, False, 11)]]


def test_reading_begins_while_a_replay_that_was_delivered_before_is_refused_and_does_not_send_it_again() -> None:
    bench = Bench(pipelined=True)
    bench.locked_replays = {1}
    recovering = Recovering(bench.state)
    recovering.begin(Loaded([], [], 5_000))
    recovering.take(Recovered(5, [ProgressRow(1, 0, 10, True, 11), ProgressRow(2, 0, 20, False, 22)]))
    bench.run()
    assert recovering.is_done
    assert (bench.settled_ids, bench.restated) == ([2], [[ProgressRow(1, 0, 10, True, 11)]])
    assert bench.told("row_not_settled")[0]["row"] == "the dead letter of the row 1"
    assert bench.state.settling.refusals.ids_aside() == set(bench.state.ledger.records) == {1}

    listed = DueReplay(101, 1, "orders", "k", 1, False)
    told = Fetched([], 5_000, replays=[listed])
    assert not Orders(bench.state).on_told(told)
    assert not len(bench.state.held)

    bench.locked_replays = set()
    bench.run(20.0)
    assert not bench.state.ledger.records
    assert Orders(bench.state).on_told(told)


def test_a_row_and_a_replay_of_one_id_that_were_delivered_before_are_known_until_both_are_settled() -> None:
    bench = Bench(pipelined=True)
    bench.locked, bench.locked_replays = {1}, {1}
    recovering = Recovering(bench.state)
    recovering.begin(Loaded([], [], 5_000))
    recovering.take(Recovered(5, [ProgressRow(1, 0, 10, True, 11), ProgressRow(1, 0, 20, False, 22)]))
    bench.run()
    assert recovering.is_done

    known = []
    for locked in (bench.locked, bench.locked_replays):
        locked.clear()
        bench.run(20.0)
        known.append(list(bench.state.ledger.records))

    assert (bench.settled_ids, known) == ([1], [[1], []])


def test_a_transaction_that_cannot_be_settled_by_itself_is_tried_again_and_nothing_is_set_aside_for_it() -> None:
    bench = Bench(pipelined=True)
    bench.locked = {2}
    bench.commit(7, 1, 2)
    bench.run()
    bench.commit(8, 3, restates=True)
    bench.writing.settle(bench.now)
    under_way = bench.state.settling.under_way
    assert under_way is not None
    assert (under_way.entries, under_way.transaction) == (0, 7)
    bench.writing.on_failed(SettleFailed(under_way, "progress is locked", refused=True))
    assert bench.state.settling.refusals.rows_aside == 1
    bench.run(3.0)
    assert bench.transactions == [7]


def test_outcomes_of_other_kinds_are_parted_too() -> None:
    bench = Bench()
    bench.locked = {2}
    bench.deliver(1)
    settling = bench.state.settling
    settling.retry(2, RETRY)
    settling.retry(3, RETRY)
    settling.out_of_retry(4)
    bench.run()
    kept = [each for each in bench.statements if not bench.locked & {record_id for record_id, _ in each.retries}]
    assert [each.delivered_ids for each in kept if each.delivered_ids] == [[1]]
    assert [each.retries for each in kept if each.retries] == [[(3, RETRY)]]
    assert [each.out_of_retry for each in kept if each.out_of_retry] == [[4]]
    assert bench.told("row_not_settled")[0]["row"] == "the row 2"


@pytest.mark.parametrize("outcome", ["delivered", "retry", "dead"])
def test_a_topic_whose_oldest_row_only_waits_for_its_settlement_is_not_stuck(outcome: str) -> None:
    bench = Bench()
    bench.locked = {1}
    if outcome == "delivered":
        bench.deliver(1)
    else:
        bench.state.ledger.enter([record(1, key=None)])
        settling = bench.state.settling
        settling.retry(1, RETRY) if outcome == "retry" else settling.dead(1, DEATH)
    bench.run()
    lanes, ledger = bench.state.lanes, bench.state.ledger
    lanes.meet(["orders"])
    for second in range(round(2 * STALL_SECONDS)):
        # There is always much with the producer, and always another.
        rows = [record(10_000 * (second + 1) + place, key=None) for place in range(5_000)]
        ledger.enter(rows)
        lanes.published(rows)
        bench.now += WATCH_SECONDS
        bench.watch.look(bench.now)
        lanes.count_in_flight(lanes["orders"], -len(rows))
        ledger.leave([row.id for row in rows])
    assert not lanes.breakers.open
    assert not bench.told("in_flight_stalled")


@pytest.mark.parametrize("refused", [False, True])
def test_what_the_database_does_not_take_stays_counted_as_not_settled(refused: bool) -> None:
    bench = Bench()
    bench.is_table_locked = refused
    settling = bench.state.settling
    bench.deliver(*range(1, 401))
    settling.retry(500, RETRY)
    settling.dead(501, DEATH)
    assert settling.records == 402
    if not refused:
        bench.writing.settle(bench.now)
        bench.writing.on_failed(SettleFailed(cast(Settlement, settling.under_way), "gone"))
        assert settling.records == 402
    for _ in range(50):
        bench.run(0.5)
        assert settling.records == (402 if refused else 0)
    bench.is_table_locked = False
    bench.run(60.0)
    assert settling.records == 0


def test_a_key_is_held_since_its_records_first_failure_through_all_attempts() -> None:
    bench = Bench()
    state = bench.state

    def fail() -> float:
        state.ledger.enter([record(1, key="k")])
        state.settling.retry(1, RETRY)
        bench.run()
        return state.held.by_id[1].waits_since

    began_at = bench.now
    first = fail()
    assert began_at <= first < bench.now
    for _ in range(2):
        bench.now += 30.0
        state.aftermath.admitted(record(1, key="k"), state.held.by_id[1])
        state.held.remove(1)
        assert fail() == first


ROWS = 4_000


@pytest.mark.parametrize(
    ("refused", "statements_max", "seconds_max"),
    [
        pytest.param(range(2, ROWS + 1, 2), 6_000, 10.0, id="every second one"),
        pytest.param(range(3, ROWS + 1, 10), 4_000, 10.0, id="every tenth"),
        pytest.param(range(1, ROWS // 2 + 1), 50, 1.0, id="the first half"),
        pytest.param([*range(1, 1_000), *range(3_000, ROWS + 1)], 300, 20.0, id="all but the middle"),
    ],
)
def test_however_many_rows_are_refused_nearly_all_others_are_settled_soon(
    refused: Sequence[int], statements_max: int, seconds_max: float
) -> None:
    # One between many that are refused is found late.
    bench, others = Bench(), round(0.99 * (ROWS - len(refused)))
    bench.locked = set(refused)
    bench.deliver(*range(1, ROWS + 1))
    began_at = bench.now
    while len(bench.settled_ids) < others and bench.now < began_at + seconds_max:
        bench.run(0.25)
    assert len(bench.settled_ids) >= others
    assert len(bench.statements) <= statements_max


def test_a_good_row_among_a_hundred_that_are_refused_is_found_within_a_minute() -> None:
    bench, good = Bench(), set(range(57, ROWS + 1, 100))
    bench.locked = set(range(1, ROWS + 1)) - good
    bench.deliver(*range(1, ROWS + 1))
    statements = bench.run(60.0)
    assert len(bench.settled_ids) >= 8
    assert statements <= 60 * 1.5 * TRIES_A_SECOND_MAX, "a few at once where one was found"


def test_many_rows_that_cannot_be_settled_among_others_are_told_once_a_minute_and_as_no_failed_database() -> None:
    bench = Bench()
    bench.locked = set(range(1, 401))
    bench.deliver(*range(1, 1_001))
    bench.run(ASIDE_TOLD_SECONDS - 1.0)
    assert len(bench.told("row_not_settled")) == 1
    bench.run(ASIDE_TOLD_SECONDS)
    assert len(bench.told("row_not_settled")) == 2
    assert not bench.told("database_failed")


def test_that_nothing_is_settled_is_told_at_once_where_all_was_settled_since() -> None:
    bench = Bench()
    for count in (1, 2):
        bench.is_table_locked = True
        bench.deliver(*range(count * 1_000, count * 1_000 + 200))
        bench.run(10.0)
        assert len(bench.told("database_failed")) == count
        bench.is_table_locked = False
        bench.run(10.0)
        assert bench.state.settling.is_empty


def test_that_all_else_waits_for_refused_rows_is_told_at_once() -> None:
    bench = Bench()
    bench.locked = set(range(1, 201))
    bench.deliver(*range(1, 201))
    bench.run(10.0)
    assert [each["others"] for each in bench.told("row_not_settled")] == ["go on"]
    bench.state.is_crowded = True
    bench.run(10.0)
    assert [each["others"] for each in bench.told("row_not_settled")[1:]] == ["wait until these are settled"]


def test_what_keeps_transactions_from_going_is_looked_for_without_long_pauses() -> None:
    bench, refused = Bench(pipelined=True), 1_000
    bench.locked = set(range(1, refused + 1))
    bench.commit(1, *range(1, refused + 1))
    bench.run(10.0)
    for number in range(2, TRANSACTIONS_WAITING + 2):
        bench.commit(number, refused + number)
        bench.run(1.0)
    assert not bench.restated, "not all is found"
    for _ in range(60):
        statements = bench.run(1.0)
        if bench.restated:
            break
        assert statements <= TRIES_A_SECOND_MAX + 1
    assert {row.outbox_id for row in bench.restated[0]} == bench.locked


def test_that_transactions_wait_for_refused_rows_is_told() -> None:
    bench = Bench(pipelined=True)
    bench.locked = {1}
    bench.state.lanes.last_delivered_at = bench.now
    for number in range(1, TRANSACTIONS_WAITING + 1):
        bench.commit(number, number)
    bench.run(10.0)
    assert not bench.state.waits_for_refused(bench.now), "nothing is there to be sent"
    bench.state.lanes.meet(["orders"])
    bench.state.lanes.published([record(100, key=None)])
    assert bench.state.waits_for_refused(bench.now)
    assert bench.state.settling.refusals.take(bench.now + 60.0) is not None
    assert bench.state.waits_for_refused(bench.now), "while it is tried again too"
    bench.state.lanes.last_delivered_at = bench.now
    assert not bench.state.waits_for_refused(bench.now)
