"""When the next fetch is asked for, as rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.backoff import FAILURE_PAUSE_SECONDS_MAX, FAILURE_PAUSE_SECONDS_MIN
from outboxd.policy.blame.routes import Route
from outboxd.policy.faults import fault_of
from outboxd.policy.fetch.gaps import Gaps
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.rows.records import FIRST_ID, NO_HISTORY, FailureHistory, Record
from outboxd.policy.topics.topic_holds import CatchUp, HoldReason
from outboxd.relay.admit.wishes import HOLDING_SECONDS
from outboxd.relay.fetch.reading import (
    AHEAD_SECONDS_MAX,
    ORDERS_SECONDS,
    PATIENCE_SECONDS_MAX,
    REPORTS_WAIT_SECONDS_MAX,
    Reading,
)
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.ports import (
    IMPATIENT,
    DueReplay,
    Fetched,
    FetchFailed,
    FetchRequest,
    HoldingLetters,
    KeyHolder,
    Patience,
    Pause,
)
from outboxd.relay.settle.writing import SETTLE_DELAY_SECONDS, Writing
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

PAUSE_SECONDS = 0.001
LIMITS = RelayLimits(
    batch_rows=10, max_in_flight_rows=20, poll_interval_min_seconds=PAUSE_SECONDS, poll_interval_max_seconds=0.1
)


class Bench:
    """A reading side whose clock the test moves, and which notes what it asked for and with what delay."""

    def __init__(self, *, pipelined: bool = False) -> None:
        self.seconds = 100.0
        self.delays: list[float] = []
        self.settled: list[object] = []
        self.hurries: list[float] = []
        self.loads: list[float] = []
        self.patience = IMPATIENT

        def begin_fetch(request: FetchRequest, delay_seconds: float, patience: Patience) -> None:
            del request
            self.delays.append(delay_seconds)
            self.patience = patience

        ports = SimpleNamespace(
            publisher=None,
            clock=SimpleNamespace(monotonic=lambda: self.seconds),
            store=SimpleNamespace(
                begin_fetch=begin_fetch,
                begin_load=lambda: self.loads.append(self.seconds),
                hurry_fetch=lambda: self.hurries.append(self.seconds),
                begin_settle=lambda settlement, _token: self.settled.append(settlement),
            ),
            observer=SimpleNamespace(
                phase=lambda *_: None, event=lambda *_args, **_fields: None, database_answered=lambda _: None
            ),
            dice=None,
        )
        self.state = State(cast(Ports, cast(Any, ports)), LIMITS, (), Route(), token=1, pipelined=pipelined)
        self.reading = Reading(self.state)
        self.reading.loading.is_done = True
        self.reading.sweeping.next_at = float("inf")
        self.reading.fetch(self.seconds)

    def answer(self, records: Sequence[Record], *, in_flight: int) -> None:
        """The fetch showed these; so many of them are with the producer then."""
        self.reading.on_fetched(Fetched(list(records), 0))
        for one in records[:in_flight]:
            self.state.lanes.count_in_flight(self.state.lanes[one.topic], 1)
        self.turn()

    def turn(self, after_seconds: float = 0.0) -> int:
        """Return how many fetches were asked for until now."""
        self.seconds += after_seconds
        self.reading.fetch(self.seconds)
        self.reading.reported(self.seconds)
        return len(self.delays)


def test_while_few_rows_come_the_pause_begins_when_they_are_acknowledged() -> None:
    bench = Bench()
    bench.answer([record(1), record(2, key="other")], in_flight=2)

    assert bench.turn(after_seconds=PAUSE_SECONDS) == 1
    bench.state.lanes.nothing_in_flight()
    assert bench.turn() == 2
    assert bench.delays[-1] == pytest.approx(PAUSE_SECONDS)


def test_reports_that_do_not_come_put_the_next_fetch_off_by_a_bound_only() -> None:
    bench = Bench()
    bench.answer([record(1)], in_flight=1)

    assert bench.turn(after_seconds=PAUSE_SECONDS + REPORTS_WAIT_SECONDS_MAX * 0.9) == 1
    assert bench.turn(after_seconds=REPORTS_WAIT_SECONDS_MAX * 0.2) == 2
    assert bench.delays[-1] == 0.0


def test_reports_that_come_late_do_not_shorten_the_pause_after_a_failed_fetch() -> None:
    bench = Bench()
    bench.answer([record(1)], in_flight=1)
    assert bench.turn(after_seconds=PAUSE_SECONDS + REPORTS_WAIT_SECONDS_MAX * 1.1) == 2
    bench.reading.on_failed(FetchFailed("gone"))
    bench.reading.sweeping.next_at = float("inf")
    bench.state.lanes.nothing_in_flight()

    assert bench.turn(after_seconds=FAILURE_PAUSE_SECONDS_MIN - 2 * AHEAD_SECONDS_MAX) == 2
    assert bench.turn(after_seconds=2 * AHEAD_SECONDS_MAX) == 3


def test_a_full_batch_is_followed_by_the_next_fetch_at_once() -> None:
    bench = Bench()
    bench.answer([record(number, key=f"k{number}") for number in range(1, 11)], in_flight=10)

    assert bench.delays == [0.0, 0.0]


def test_a_transaction_is_not_waited_for() -> None:
    bench = Bench(pipelined=True)
    bench.answer([record(1)], in_flight=1)

    assert len(bench.delays) == 2
    assert bench.delays[-1] == pytest.approx(PAUSE_SECONDS)


def test_only_what_is_due_soon_is_asked_for_ahead() -> None:
    bench = Bench()
    bench.answer([], in_flight=0)
    while bench.state.reading is not None:
        # Each answer is empty, so that the pause is doubled, until it is too long for that.
        bench.seconds += bench.delays[-1]
        bench.answer([], in_flight=0)

    assert 0 < max(bench.delays) <= AHEAD_SECONDS_MAX
    assert bench.turn(after_seconds=AHEAD_SECONDS_MAX / 100) == len(bench.delays)


@pytest.mark.parametrize("limits", [RelayLimits(max_in_flight_rows=1), RelayLimits(batch_rows=1, max_in_flight_rows=3)])
def test_however_low_the_limits_are_no_more_is_read_than_may_be_in_memory(limits: RelayLimits) -> None:
    bench = Bench()
    bench.state.reconfigure(limits, (), Route())
    for record_id in range(1, 10):
        request = bench.state.reading
        if isinstance(request, FetchRequest) and request.forward:
            bench.answer([record(record_id, key=None)], in_flight=1)
            bench.turn(after_seconds=1.0)

    assert len(bench.state.ledger) == limits.max_in_flight_rows
    assert bench.state.is_crowded
    bench.state.ledger.leave([1])
    bench.reading.on_fetched(Fetched([], 0))
    bench.turn(after_seconds=1.0)
    assert isinstance(bench.state.reading, FetchRequest)
    assert bench.state.reading.forward


def test_a_look_back_into_merged_gaps_leaves_out_what_waits_of_each_key_however_many_they_are() -> None:
    bench = Bench()
    state, keys = bench.state, 8_000
    state.wishes.gaps = Gaps(gaps_max=2)
    state.wishes.gaps.seen_below(0, 5 * keys, [2, 4, 6])
    merged_to = state.wishes.gaps.merged_to
    assert merged_to == 5 * keys
    for number in range(2 * keys):
        state.gate.keys.defer(("orders", f"k{number}"), record(3 * number, key=f"k{number}"))

    known = state.wishes.request(rows_max=10, bytes_max=1_000).known

    assert known is not None
    assert known.keys["orders"] == {f"k{number}": 3 * number for number in range(2 * keys) if 3 * number <= merged_to}


def test_where_memory_is_full_what_was_delivered_is_settled_at_once() -> None:
    bench = Bench()
    writing = Writing(bench.state)
    bench.state.settling.ids += [1]
    bench.state.settling.partitions += [0]
    bench.state.settling.offsets += [7]
    bench.state.settling.first_at = bench.seconds

    writing.settle(bench.seconds + SETTLE_DELAY_SECONDS / 2)
    assert not bench.settled
    bench.state.is_crowded = True
    writing.settle(bench.seconds + SETTLE_DELAY_SECONDS / 2)
    assert len(bench.settled) == 1


def idled(bench: Bench) -> Bench:
    """Answer with nothing until the pauses between fetches grow no more."""
    while bench.patience == IMPATIENT:
        assert bench.seconds < 110, "it never became patient"
        if bench.state.reading is None:
            bench.seconds = min(bench.reading.deadlines())
            bench.reading.fetch(bench.seconds)
        else:
            bench.seconds += bench.delays[-1]
            bench.answer([], in_flight=0)
    return bench


def test_an_idle_outbox_is_asked_again_without_the_loop_at_the_longest_interval() -> None:
    bench = idled(Bench())

    assert bench.patience == Patience(LIMITS.poll_interval_max_seconds, PATIENCE_SECONDS_MAX)
    assert bench.delays[-1] == pytest.approx(LIMITS.poll_interval_max_seconds)


def test_patience_ends_when_something_else_is_to_be_read() -> None:
    bench = Bench()
    sweep_at = bench.reading.sweeping.next_at = bench.seconds + 1.0
    idled(bench)

    assert bench.seconds + bench.patience.seconds == pytest.approx(sweep_at)


def test_while_a_topic_is_paused_or_an_id_is_missing_each_answer_is_told() -> None:
    paused = idled(Bench())
    pauses = [Pause("orders", 0, "somebody", None)]
    paused.reading.on_fetched(Fetched([], 0, pauses=pauses))
    gap = idled(Bench())
    gap.reading.on_fetched(Fetched([record(7)], 0))
    gap.state.ledger.leave([7])
    writing = frozenset({"3/14"})

    for name, bench, answer in (
        ("paused", paused, Fetched([], 0, pauses=pauses)),
        ("gap", gap, Fetched([], 0, locks=writing)),
    ):
        asked = len(bench.delays)
        for _ in range(20):
            bench.turn()
            bench.turn(after_seconds=LIMITS.poll_interval_max_seconds)
            assert bench.patience == IMPATIENT, name
            bench.reading.on_fetched(answer)
        assert len(bench.delays) == asked + 20, name


PAUSED = [Pause("orders", 0, "somebody", None)]


def fetches_within(bench: Bench, seconds: float, pauses: Sequence[Pause] = ()) -> int:
    """Return how many fetches of nothing the outbox costs meanwhile."""
    until, asked = bench.seconds + seconds, len(bench.delays)
    while bench.seconds < until:
        if bench.state.reading is None:
            bench.seconds = max(bench.seconds, min(bench.reading.deadlines()))
            bench.turn()
        else:
            bench.seconds += bench.delays[-1]
            bench.reading.on_fetched(Fetched([], 0, pauses=pauses))
    return len(bench.delays) - asked


def paused_under_load() -> Bench:
    """Return an outbox whose topic was paused while a record of it was with the producer and others waited."""
    bench = Bench()
    bench.answer([record(1), record(2), record(3, key="other")], in_flight=2)
    bench.turn(after_seconds=1.0)
    bench.reading.on_fetched(Fetched([], 0, pauses=PAUSED))
    state = bench.state
    assert state.gate.release_all([record(1)]) == []
    state.ledger.leave([1, 3])
    state.lanes.nothing_in_flight()
    state.ready.clear()
    state.held.add(HeldRecord(3, "orders", ("orders", "other"), NO_HISTORY, HeldState.WANTED, "topic held", 0.0))
    state.topics.split([record(4)], ())
    return bench


def test_a_topic_that_is_paused_under_load_has_an_idle_outbox_asked_no_more_often() -> None:
    idle = Bench()
    idle.reading.on_fetched(Fetched([], 0, pauses=PAUSED))
    fetches_within(idle, 5.0, PAUSED)
    bench = paused_under_load()
    fetches_within(bench, 5.0, PAUSED)

    assert fetches_within(bench, 10.0, PAUSED) == fetches_within(idle, 10.0, PAUSED)
    assert not bench.state.wishes.wants_more
    assert bench.state.is_idle


def test_a_replay_behind_another_dead_letter_of_its_key_has_an_idle_outbox_asked_no_more_often() -> None:
    idle, bench = Bench(), Bench()
    for each in (idle, bench):
        each.reading.on_fetched(Fetched([], 0))
        each.state.held.add(HeldRecord(1, "orders", ("orders", "k"), NO_HISTORY, HeldState.DEAD, "dead letter", 0.0))
    replay = FailureHistory(1, 70)
    bench.state.held.add(HeldRecord(2, "orders", ("orders", "k"), replay, HeldState.WANTED, "replay", 0.0))
    for each in (idle, bench):
        fetches_within(each, 5.0)

    assert fetches_within(bench, 10.0) == pytest.approx(fetches_within(idle, 10.0), rel=0.05)
    assert bench.state.is_idle
    bench.state.held.remove(1)
    bench.state.gate.release(("orders", "k"), 1)
    fetches_within(bench, 2 * LIMITS.poll_interval_max_seconds)
    assert 2 not in bench.state.held, "asked for, and gone from the database"


def test_replays_of_one_key_go_by_their_ids_wherever_the_list_of_replays_is_read_from() -> None:
    bench = Bench()
    bench.state.wishes.cursors.replay = 6
    older, newer = DueReplay(105, 5, "orders", "k", 1), DueReplay(107, 7, "orders", "k", 1, is_behind=True)
    bench.reading.on_fetched(Fetched([], 0, replays=[newer]))
    assert 7 not in bench.state.held
    for listed in ([], [older, newer._replace(is_behind=False)]):
        bench.turn(after_seconds=1.0)
        bench.reading.on_fetched(Fetched([], 0, replays=listed))

    bench.turn(after_seconds=1.0)

    request = bench.state.reading
    assert isinstance(request, FetchRequest)
    assert list(request.replay_ids) == [105]
    assert bench.state.held.by_id[7].is_replay


def test_what_waited_for_a_pause_to_end_is_asked_for_at_once_when_it_does() -> None:
    bench = paused_under_load()
    fetches_within(bench, 5.0, PAUSED)
    if bench.state.reading is None:
        bench.seconds = min(bench.reading.deadlines())
        bench.turn()
    bench.reading.on_fetched(Fetched([], 0))

    bench.turn()

    request = bench.state.reading
    assert isinstance(request, FetchRequest)
    assert bench.delays[-1] == 0.0
    assert (list(request.rereads), list(request.chosen_ids)) == ([Reread(("orders", "k"), 2)], [3])
    assert list(request.catch_ups) == [CatchUp("orders", 4)]


def test_a_patient_fetch_is_hurried_by_whatever_else_happens() -> None:
    for happens in (Reading.woken, lambda reading: reading.pace(listening=True), Reading.hurry):
        bench = idled(Bench())
        happens(bench.reading)
        assert bench.hurries == [bench.seconds]


def test_a_fetch_that_is_not_patient_is_not_hurried() -> None:
    bench = Bench()
    bench.reading.woken()
    assert not bench.hurries


def test_a_load_that_fails_is_tried_again_after_a_pause_that_grows_and_not_before() -> None:
    bench = Bench()
    bench.reading.loading.is_done = False
    bench.reading.loading.begin()
    for _ in range(20):
        bench.reading.on_failed(FetchFailed("no answer"))
        asked = len(bench.loads)
        bench.reading.fetch(bench.seconds)
        assert len(bench.loads) == asked
        [bench.seconds] = bench.reading.deadlines()
        bench.reading.fetch(bench.seconds)
        assert len(bench.loads) == asked + 1

    pauses = [after - before for before, after in pairwise(bench.loads)]
    assert pauses[0] == pytest.approx(FAILURE_PAUSE_SECONDS_MIN)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(FAILURE_PAUSE_SECONDS_MAX)


def test_a_part_of_what_holds_its_key_is_listed_with_a_fetch_each_time_that_the_sweep_begins() -> None:
    bench = Bench()
    afters: list[int | None] = []
    for cursor in (7, None):
        bench.state.wishes.wants_holding = True
        for _ in range(2):
            bench.reading.on_fetched(Fetched([], 0))
            bench.seconds = max(bench.seconds, min(bench.reading.deadlines()))
            bench.turn()
        asked = bench.state.reading
        assert isinstance(asked, FetchRequest)
        afters.append(asked.holding_after)
        bench.reading.on_fetched(Fetched([], 0, holding=HoldingLetters([], cursor)))
        assert bench.state.wishes.request(9, 9).holding_after is None
        assert bench.state.wishes.request_for_orders().holding_after is None

    assert afters == [FIRST_ID, 7]
    bench.state.wishes.wants_holding = True
    assert bench.state.wishes.request_for_orders().holding_after == FIRST_ID


def test_while_a_dead_letter_holds_its_key_a_part_of_them_is_listed_twice_a_second() -> None:
    bench = Bench()
    began = bench.seconds
    letter = KeyHolder(3, "orders", "k", 1, 5, replaying=False, due_in_seconds=0.0)
    listed_at: list[float] = []
    while bench.seconds < began + 3.0:
        if bench.seconds >= began + 1.0 and not len(bench.state.held):
            history = FailureHistory(1, letter.dead_letter_id)
            bench.state.held.add(
                HeldRecord(3, "orders", ("orders", "k"), history, HeldState.DEAD, "dead letter", bench.seconds, key="k")
            )
        asked = bench.state.reading
        assert isinstance(asked, FetchRequest)
        bench.seconds += bench.delays[-1] + bench.patience.seconds
        if asked.holding_after is None:
            bench.reading.on_fetched(Fetched([], 0))
        else:
            listed_at.append(bench.seconds)
            bench.reading.on_fetched(Fetched([], 0, holding=HoldingLetters([letter], None)))
        bench.seconds = max(bench.seconds, min(bench.reading.deadlines()))
        bench.turn()

    assert began + 1.0 < listed_at[0] < began + 2.5
    assert len(listed_at) >= 2
    assert all(after - before == pytest.approx(HOLDING_SECONDS, abs=0.2) for before, after in pairwise(listed_at))


def test_not_all_is_read_while_replays_are_listed_that_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.state.topics.hold("orders", HoldReason.PAUSED, bench.seconds)
    for place, (rows_max, listed, read_all) in enumerate([(9, 2, False), (9, 0, True), (9, 1, False), (2, 1, True)]):
        monkeypatch.setattr("outboxd.relay.memory.held_records.REPLAYS_MAX", rows_max)
        bench.seconds = max(bench.seconds, min(bench.reading.deadlines(), default=bench.seconds))
        bench.turn()
        replays = [DueReplay(10 + number, number, "orders", "k", 1) for number in range(1, 1 + listed)]
        bench.reading.on_fetched(Fetched([], 0, replays=replays))
        assert bench.reading.read_all is read_all, place


def test_operators_are_heard_once_a_second_while_memory_is_full() -> None:
    bench = Bench()
    bench.reading.on_fetched(Fetched([], 0))
    bench.state.ledger.enter([record(number) for number in range(20)])
    asked: list[object] = []
    for _ in range(3):
        bench.reading.fetch(bench.seconds)
        asked.append(bench.state.reading)
        [bench.seconds] = bench.reading.deadlines()
        bench.reading.fetch(bench.seconds)
        asked.append(bench.state.reading)
        bench.reading.on_fetched(Fetched([], 0, pauses=[Pause("orders", 0, "anna", None)]))

    assert [isinstance(one, FetchRequest) and not one.forward for one in asked] == [False, True] * 3
    assert bench.seconds == pytest.approx(100.0 + 3 * ORDERS_SECONDS)
    assert [pause.topic_pattern for pause in bench.state.lanes.pauses] == ["orders"]
    bench.state.ledger.leave(range(20))
    bench.turn(ORDERS_SECONDS)
    request = bench.state.reading
    assert isinstance(request, FetchRequest)
    assert request.forward


def test_a_topic_of_which_nothing_is_left_to_try_it_with_waits_no_more() -> None:
    bench = Bench()
    bench.answer([], in_flight=0)
    state = bench.state
    state.lanes.meet(["orders"])
    state.aftermath.holding.open_breaker("orders", fault_of(29), "denied", bench.seconds)
    assert "orders" in state.topics.held

    bench.seconds += 1.0
    bench.answer([], in_flight=0)

    assert (state.topics.held, state.lanes.breakers.open) == ({}, {})
    assert not state.topics.want_catch_ups
