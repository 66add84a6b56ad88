"""From the answer of a fetch to the records that go: what a limit cut was not read, and stays wanted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.reads import DueReplay, Fetched
from outboxd.policy.exchange.requests import FetchRequest
from outboxd.policy.faults import fault_of
from outboxd.policy.fetch.gaps import Gaps
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import FIRST_ID, ID_MAX, NO_HISTORY, Arm, FailureHistory, Record
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.topic_holds import CatchUp, HoldReason, TopicHolds
from outboxd.relay.admit.admission import Admission, Admitted
from outboxd.relay.admit.probing import Probing
from outboxd.relay.admit.wishes import FOUND_MAX, Wishes
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from tests.unit.records import record


class StillClock:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 0.0


class Bench:
    """An admission with its parts, and the wishes that it answers."""

    def __init__(self, rows_max: int = 100, reach_ids_min: int = 1_000_000) -> None:
        self.rows_max = rows_max
        self.gate = KeyGate()
        self.topics = TopicHolds()
        self.partitions = PartitionHolds(self.topics)
        self.held = HeldRecords(self.gate)
        self.ledger = Ledger(1_000, 1_000_000)
        self.lanes = Lanes([], Route(), self.topics, self.gate, clock=StillClock())
        self.probing = Probing(
            breakers=self.lanes.breakers, topics=self.topics, gate=self.gate, held=self.held, ledger=self.ledger
        )
        self.wishes = Wishes(
            self.gate,
            self.topics,
            self.held,
            self.probing,
            self.ledger,
            partitions=self.partitions,
            reach_ids_min=reach_ids_min,
        )
        self.admission = Admission(
            gate=self.gate,
            topics=self.topics,
            partitions=self.partitions,
            held=self.held,
            ledger=self.ledger,
            lanes=self.lanes,
            probing=self.probing,
            wishes=self.wishes,
        )

    def fetch(self, *answer: Record, **told: Any) -> Admitted:
        request = self.wishes.request(self.rows_max, 1_000_000)
        return self.admission.take(request, Fetched(list(answer), 0, **told), 0.0)


def ids(admitted: Admitted) -> list[int]:
    return [one.id for one in admitted.ready]


def test_a_late_record_goes_before_a_newer_one_of_the_same_snapshot() -> None:
    bench = Bench()
    bench.fetch(record(2, key="x"))

    admitted = bench.fetch(record(1, arm=Arm.LOOK_BACK), record(3))

    assert ids(admitted) == [1]
    assert bench.gate.waiting_ids() == {3}


def test_the_forward_read_goes_on_behind_its_last_record_and_leaves_gaps() -> None:
    bench = Bench()

    bench.fetch(record(2, key="a"), record(5, key="b"))

    assert bench.wishes.cursors.position == 5
    assert bench.wishes.gaps.ranges() == ([FIRST_ID + 1, 3], [1, 4])


def test_what_is_in_memory_is_not_taken_twice() -> None:
    bench = Bench()
    bench.fetch(record(1, key="a"))

    assert ids(bench.fetch(record(1, key="a", arm=Arm.LOOK_BACK), record(2, key="b"))) == [2]


def test_gaps_behind_a_cut_stay_open() -> None:
    bench = Bench(rows_max=2)
    bench.fetch(record(3, key="a"), record(6, key="b"))
    bench.fetch()

    bench.fetch(record(1, key="c", arm=Arm.LOOK_BACK), record(2, key="d", arm=Arm.LOOK_BACK))

    assert bench.wishes.gaps.ranges() == ([4], [5])


def test_a_chosen_record_behind_a_cut_is_wanted_again_and_one_that_is_not_shown_has_vanished() -> None:
    bench = Bench(rows_max=2)
    bench.fetch(record(3, key="x"), record(6, key="y"))
    bench.held.add(HeldRecord(2, "orders", ("orders", "k"), NO_HISTORY, HeldState.WANTED, "why", 0.0))

    cut = bench.fetch(record(4, key="c", arm=Arm.LOOK_BACK), record(5, key="d", arm=Arm.LOOK_BACK))
    assert cut.vanished == []
    assert 2 in bench.held

    whole = bench.fetch()
    assert [one.id for one in whole.vanished] == [2]


def test_a_topic_is_read_in_full_where_the_highest_id_there_is_was_shown() -> None:
    bench = Bench(rows_max=4)
    bench.wishes.cursors.position = ID_MAX
    bench.topics.defer("orders", ID_MAX - 2)

    bench.fetch(*[record(ID_MAX - i, key=f"key-{i}", arm=Arm.CATCH_UP) for i in (2, 1, 0)])

    assert not bench.topics.deferred


def test_a_held_record_that_is_read_again_is_resumed_with_its_history() -> None:
    bench = Bench()
    held = HeldRecord(2, "orders", ("orders", "k"), NO_HISTORY, HeldState.WANTED, "why", 0.0)
    bench.held.add(held)

    admitted = bench.fetch(record(2, arm=Arm.CHOSEN))

    assert admitted.resumed == [(record(2, arm=Arm.CHOSEN), held)]
    assert 2 not in bench.held


def test_a_held_record_that_the_gate_refuses_is_still_held() -> None:
    bench = Bench()
    bench.held.add(HeldRecord(5, "orders", ("orders", "k"), NO_HISTORY, HeldState.WANTED, "why", 0.0))

    admitted = bench.fetch(record(5, arm=Arm.CHOSEN), record(3))

    assert ids(admitted) == [3], "an older one of its key came up in the same snapshot"
    assert 5 in bench.held
    assert bench.wishes.wants_more


@pytest.mark.parametrize(("arm", "dead_letter_id"), [(Arm.REPLAY, 7), (Arm.CHOSEN, None)])
def test_a_held_record_that_is_read_again_with_another_key_is_gone_from_the_key_it_was_held_by(
    arm: Arm, dead_letter_id: int | None
) -> None:
    bench = Bench()
    history = FailureHistory(1, dead_letter_id)
    held = HeldRecord(1, "orders", ("orders", "a"), history, HeldState.WANTED, "replay", 0.0, key="a")
    bench.held.add(held)

    admitted = bench.fetch(record(1, key="b", arm=arm), record(2, key="b"))

    assert admitted.vanished == [held]
    assert ids(admitted) == [2]
    assert not admitted.resumed


def changed(bench: Bench, *record_ids: int, state: HeldState = HeldState.SCHEDULED) -> list[HeldRecord]:
    """Hold records by a key that their rows do not have any more."""
    held = [HeldRecord(one, "orders", ("orders", f"was-{one}"), NO_HISTORY, state, "retry", 0.0) for one in record_ids]
    for each in held:
        bench.held.add(each)
    return held


def test_a_topic_catches_up_behind_a_cut_though_all_that_was_shown_has_another_key_than_it_is_held_by() -> None:
    bench = Bench(rows_max=2)
    bench.topics.hold("orders", HoldReason.PAUSED, 0.0)
    bench.fetch(record(1), record(2))
    bench.topics.release("orders", HoldReason.PAUSED, 1.0)
    changed(bench, 1, 2)

    assert ids(bench.fetch(record(1, arm=Arm.CATCH_UP), record(2, arm=Arm.CATCH_UP))) == []

    assert bench.topics.deferred == {"orders": 3}
    assert {1, 2} <= set(bench.held.by_id)


def test_a_key_is_read_on_behind_a_full_answer_though_a_held_record_was_given_that_key_meanwhile() -> None:
    bench = Bench()
    bench.gate.waiting_per_key_max = 0
    bench.fetch(record(1), record(2))
    bench.gate.release(("orders", "k"), 1)
    bench.ledger.leave([1])
    bench.gate.waiting_per_key_max = 2
    changed(bench, 3)

    admitted = bench.fetch(record(2, arm=Arm.REREAD), record(3, arm=Arm.REREAD))

    assert ids(admitted) == [2]
    assert bench.gate.deferred_keys == {("orders", "k"): 4}


def test_a_key_is_read_on_behind_a_cut_though_all_that_was_shown_of_it_was_held_by_another_one() -> None:
    bench = Bench(rows_max=1)
    bench.gate.waiting_per_key_max = 0
    bench.fetch(record(1), record(2))
    bench.gate.release(("orders", "k"), 1)
    bench.ledger.leave([1])
    bench.gate.waiting_per_key_max = 9
    changed(bench, 3)

    assert ids(bench.fetch(record(3, arm=Arm.REREAD))) == []

    assert bench.gate.deferred_keys == {("orders", "k"): 4}


def test_gaps_behind_a_cut_stay_open_though_all_that_was_shown_has_another_key_than_it_is_held_by() -> None:
    bench = Bench(rows_max=2)
    bench.fetch(record(3, key="a"), record(6, key="b"))
    bench.fetch()
    changed(bench, 1, 2)

    bench.fetch(record(1, arm=Arm.LOOK_BACK), record(2, arm=Arm.LOOK_BACK))

    assert bench.wishes.gaps.ranges() == ([4], [5])


def test_a_record_that_is_read_again_with_another_key_is_gone_however_the_answer_was_cut() -> None:
    bench = Bench(rows_max=1)
    held = changed(bench, 1, state=HeldState.WANTED)

    assert bench.fetch(record(1, arm=Arm.CHOSEN)).vanished == held


@pytest.mark.parametrize("changed_ids", [[1, 2], [2], [1]])
def test_a_probe_is_looked_for_behind_a_cut_though_what_was_shown_has_another_key_than_it_is_held_by(
    changed_ids: list[int],
) -> None:
    bench = Bench(rows_max=2)
    bench.lanes.breakers.trip("orders", fault_of(7), "why", 0.0)
    bench.topics.hold("orders", HoldReason.BREAKER, 0.0)
    bench.fetch(record(1))
    changed(bench, *changed_ids)
    # One that is in memory is no probe either.
    bench.ledger.enter([record(one) for one in (1, 2) if one not in changed_ids])
    assert bench.probing.look(1.0)

    assert ids(bench.fetch(record(1, arm=Arm.CATCH_UP), record(2, arm=Arm.CATCH_UP))) == []

    breaker = bench.lanes.breakers.open["orders"]
    assert (breaker.read_from, breaker.nothing_untried) == (3, False)


def test_what_the_sweep_found_is_read_by_its_id_once() -> None:
    bench = Bench()
    bench.fetch(record(9, key="x"))
    bench.wishes.found_by_sweep([4])

    assert bench.wishes.wants_more
    assert ids(bench.fetch(record(4, arm=Arm.CHOSEN))) == [4]
    assert not bench.wishes.wants_more


def test_records_of_a_held_topic_are_dropped_and_the_topic_catches_up_later() -> None:
    bench = Bench()
    bench.topics.hold("orders", HoldReason.PAUSED, 0.0)

    assert ids(bench.fetch(record(1), record(2, topic="free"))) == [2]
    assert len(bench.ledger) == 1
    bench.topics.release("orders", HoldReason.PAUSED, 1.0)
    assert list(bench.wishes.request(9, 9).catch_ups) == [CatchUp("orders", 1)]
    assert ids(bench.fetch(record(1, arm=Arm.CATCH_UP))) == [1]
    assert not bench.wishes.wants_more


def test_topics_that_catch_up_leave_a_fourth_of_a_fetch_to_what_is_new_also_where_their_records_are_large() -> None:
    bench = Bench()
    for topic in ("a", "b"):
        bench.topics.hold(topic, HoldReason.PAUSED, 0.0)
    bench.fetch(record(1, topic="a"), record(2, topic="b"))
    assert bench.wishes.request(100, 9).catch_up_rows_max == 0
    for topic in ("a", "b"):
        bench.topics.release(topic, HoldReason.PAUSED, 1.0)
    assert bench.wishes.request(100, 9).catch_up_rows_max == 37

    # They took all bytes that a fetch may bring.
    bench.fetch(*(record(10 + place, topic="a", arm=Arm.CATCH_UP, size_bytes=125_000) for place in range(8)))

    assert bench.wishes.request(100, 9).catch_up_rows_max == 3
    bench.fetch(record(18, topic="a", arm=Arm.CATCH_UP), record(90, topic="new"))
    assert (
        bench.wishes.request(100, 9).catch_up_rows_max == 6 if len(bench.wishes.request(100, 9).catch_ups) == 2 else 12
    )


def test_after_a_lost_connection_everything_is_read_from_the_beginning() -> None:
    bench = Bench()
    bench.fetch(record(2))

    bench.wishes.start_again()

    request = bench.wishes.request(9, 9)
    assert (request.position, list(request.gap_lows)) == (FIRST_ID, [])


def test_a_row_that_the_sweep_found_and_that_is_held_meanwhile_is_wanted_no_more() -> None:
    bench = Bench()
    bench.wishes.found_by_sweep([7, 8])
    bench.held.add(HeldRecord(7, "orders", ("orders", "k"), NO_HISTORY, HeldState.SCHEDULED, "retry", 0.0, 1e9))
    assert list(bench.wishes.request(9, 9).chosen_ids) == [8]
    bench.fetch(record(8, arm=Arm.CHOSEN))
    assert not bench.wishes.wants_more


def test_the_list_of_replays_is_not_read_on_while_there_is_no_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.relay.memory.held_records.REPLAYS_MAX", 1)
    bench = Bench()
    replay = FailureHistory(1, 70)
    bench.held.add(HeldRecord(7, "orders", ("orders", "k"), replay, HeldState.WANTED, "replay", 0.0))
    listed = Fetched([], 0, replays=[DueReplay(80, 8, "orders", "k", 1)])
    bench.admission.take(bench.wishes.request(9, 9), listed, 0.0)
    assert bench.wishes.cursors.replay == FIRST_ID
    bench.held.remove(7)
    bench.admission.take(bench.wishes.request(9, 9), listed, 0.0)
    assert bench.wishes.cursors.replay == 8


def test_what_is_scheduled_for_later_is_passed_over_once_nothing_else_is_shown() -> None:
    bench = Bench(rows_max=2)
    assert not bench.wishes.request(9, 9).want_top
    bench.fetch(record(1))
    assert not bench.wishes.request(9, 9).want_top
    bench.fetch()
    assert bench.wishes.request(9, 9).want_top

    # Where the answer was cut, what stands above it was not read.
    bench.fetch(record(3), record(4), top_id=900)
    assert bench.wishes.cursors.position == 4
    bench.fetch()
    bench.fetch(record(7), top_id=1_000)
    assert bench.wishes.cursors.position == 1_000
    assert bench.wishes.gaps.ranges() == ([5, 8], [6, 1_000])


def test_no_more_is_listed_that_came_to_be_due_while_enough_of_it_waits_to_be_read() -> None:
    bench = Bench()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    bench.fetch(available_cursor=(moment, 7))
    assert bench.wishes.request(9, 9).available_cursor == (moment, 7)

    bench.wishes.found_by_sweep(range(FOUND_MAX))
    assert bench.wishes.request(9, 9).available_cursor is None
    assert bench.wishes.request_for_orders().available_cursor is None
    bench.fetch(available_cursor=(moment, 9))
    assert bench.wishes.cursors.available == (moment, 7)


@pytest.mark.parametrize("serial", [False, True], ids=["catching up", "one by one"])
def test_a_topic_of_which_only_some_ids_were_looked_at_is_read_on_behind_these(serial: bool) -> None:
    bench = Bench(reach_ids_min=10)
    bench.fetch(record(100))
    if serial:
        bench.gate.serial_topics.add("orders")
        bench.gate.keys.defer(("orders", None), record(5))
        bench.gate.keys.free(("orders", None))
    else:
        bench.topics.hold("orders", HoldReason.PAUSED, 0.0)
        bench.topics.split([record(5)], ())
        bench.topics.release("orders", HoldReason.PAUSED, 0.0)

    bench.fetch()

    request = bench.wishes.request(9, 9)
    wishes = request.rereads if serial else request.catch_ups
    assert [wish.from_id for wish in wishes] == [16]


def test_reads_of_a_topic_cover_more_ids_where_that_is_their_limit_and_they_are_quick_and_fewer_once_slow() -> None:
    bench = Bench(reach_ids_min=10)
    whole, part = (FetchRequest(to, 1, 1, catch_ups=[CatchUp("orders", 1)], reach_ids=10) for to in (5, 100))
    of_key = FetchRequest(100, 1, 1, rereads=[Reread(("orders", "k"), 1)], reach_ids=10)

    def reach_after(request: FetchRequest, seconds: float) -> int:
        bench.wishes.took(request, seconds)
        return bench.wishes.request(9, 9).reach_ids

    assert [reach_after(part, seconds) for seconds in (0.01, 0.01, 0.1, 1.0, 1.0, 1.0)] == [40, 160, 160, 40, 10, 10]
    assert [reach_after(request, 0.01) for request in (whole, of_key)] == [10, 10]
    assert reach_after(part, 0.01) == reach_after(of_key, 9.0) == 40
    assert reach_after(part, float("inf")) == 10


def test_reads_of_a_topic_cover_more_ids_though_any_fetch_takes_long_on_a_slow_network() -> None:
    bench = Bench(reach_ids_min=10)
    new = FetchRequest(100, 1, 1)
    part = FetchRequest(100, 1, 1, catch_ups=[CatchUp("orders", 1)], reach_ids=10)

    def reach_after(request: FetchRequest, seconds: float) -> int:
        bench.wishes.took(request, seconds)
        return bench.wishes.request(9, 9).reach_ids

    assert [reach_after(new, seconds) for seconds in (float("inf"), 0.31, 0.3)] == [10, 10, 10]
    assert [reach_after(part, seconds) for seconds in (0.32, 0.2, 0.4, 0.6, 0.6)] == [40, 160, 160, 40, 10]
    assert reach_after(part, float("inf")) == 10


def test_a_long_backlog_that_waits_between_published_rows_is_read_in_as_many_fetches_as_without_gaps() -> None:
    """While a transaction stays open no gap closes, so they are merged across what a paused topic has pending."""
    bench = Bench(rows_max=1_000)
    bench.topics.hold("orders", HoldReason.PAUSED, 0.0)
    pending = range(1, 20_001, 2)
    fetches, gaps_most = 0, 0

    while bench.wishes.cursors.position < pending[-1]:
        request = bench.wishes.request(bench.rows_max, 1_000_000)
        known_from = request.known.topics["orders"] if request.known is not None else pending[-1] + 1
        late = [
            one
            for low, high in zip(request.gap_lows, request.gap_highs, strict=True)
            for one in pending[low // 2 : (high + 1) // 2]
            if one < known_from
        ][: bench.rows_max]
        room = bench.rows_max - len(late)
        new = pending[(request.position + 1) // 2 :][:room]
        answer = [record(one, arm=Arm.LOOK_BACK) for one in late] + [record(one) for one in new]
        fetched = Fetched(answer, 0, locks=frozenset({"3/7"}))
        bench.admission.take(request, fetched, 0.0)
        fetches += 1
        gaps_most = max(gaps_most, len(bench.wishes.gaps))

    assert fetches == len(pending) // bench.rows_max
    assert gaps_most <= 2_000


def test_a_look_back_into_merged_gaps_is_told_of_all_that_is_known_there() -> None:
    bench = Bench()
    bench.wishes.gaps = Gaps(gaps_max=4)
    bench.topics.hold("paused", HoldReason.PAUSED, 0.0)
    bench.gate.serial_topics.add("serial")
    held = HeldRecord(6, "orders", ("orders", "held"), NO_HISTORY, HeldState.SCHEDULED, "why", 0.0, 60.0)
    bench.held.add(held)
    assert bench.wishes.request(100, 1_000_000).known is None

    bench.fetch(
        record(2, topic="paused"), record(4, key="a"), record(8, key="held"), record(10, key="b"),
        record(12, topic="serial"), record(14, topic="paused"), record(16, topic="orders", key="held"),
    )  # fmt: skip

    known = bench.wishes.request(100, 1_000_000).known
    assert known is not None
    assert set(known.ids) == {4, 6, 10, 12}
    assert dict(known.topics) == {"paused": 2}
    assert known.keys == {"orders": {"held": 8}}


def test_reading_that_went_back_is_not_led_to_the_end_again_by_a_row_that_is_not_due() -> None:
    bench = Bench()
    bench.fetch(record(1))
    bench.fetch()
    bench.fetch(top_id=10_000)
    bench.wishes.found_by_sweep([5, 100, 200])

    bench.wishes.go_back(100)
    assert bench.wishes.cursors.position == 99
    assert list(bench.wishes.found) == [5]
    bench.fetch()
    assert not bench.wishes.request(9, 9).want_top
    bench.fetch(record(10_000))
    bench.fetch()
    assert bench.wishes.request(9, 9).want_top

    bench.wishes.go_back(20_000)
    assert bench.wishes.cursors.position == 10_000
