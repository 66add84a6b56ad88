"""Which records may go now, so that each key keeps its order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record
from tests.unit.records import record

KEY = ("orders", "k")


def ids(records: list[Record]) -> list[int]:
    return [one.id for one in records]


def gate_with(*record_ids: int, waiting_per_key_max: int = 256) -> KeyGate:
    gate = KeyGate(waiting_per_key_max=waiting_per_key_max)
    gate.admit([record(one) for one in record_ids])
    return gate


def test_one_record_a_key_goes_and_the_others_follow_one_by_one() -> None:
    gate = KeyGate()

    assert ids(gate.admit([record(1), record(2), record(3, key="other"), record(4)])) == [1, 3]
    assert ids(gate.release_all([record(1)])) == [2]
    assert ids(gate.release_all([record(2)])) == [4]
    assert gate.release_all([record(4)]) == []
    assert (gate.keys.owner_of(KEY), gate.keys.owner_of(("orders", "other"))) == (None, 3)


@pytest.mark.parametrize("record_id", [0, -1, -2])
def test_any_number_may_be_the_id_of_a_busy_record(record_id: int) -> None:
    gate = gate_with(record_id)

    assert gate.is_behind(record(record_id + 1))
    gate.hold(KEY, record_id - 1)
    assert not gate.is_turn_of(KEY, record_id - 1)
    assert gate.keys.owner_of(KEY) == record_id


def test_what_a_pipelined_gate_deferred_between_two_held_records_goes_before_the_second() -> None:
    gate = KeyGate(pipelined=True)
    gate.hold(KEY, 1)
    assert gate.admit([record(2)]) == []
    gate.hold(KEY, 3)

    assert ids(gate.admit([record(1)])) == [1]
    assert gate.admit([record(3)]) == []
    assert [wish.from_id for wish in gate.rereads.wanted(10)] == [2]


def test_records_without_a_key_have_no_order() -> None:
    gate = KeyGate()

    assert ids(gate.admit([record(1, key=None), record(2, key=None)])) == [1, 2]
    assert gate.keys.owner_of(KEY) is None


def test_a_topic_that_goes_one_at_a_time_is_one_key() -> None:
    gate = KeyGate()
    gate.serial_topics.add("orders")

    assert ids(gate.admit([record(1, key="a"), record(2, key="b"), record(3, key=None)])) == [1]
    assert ids(gate.release_all([record(1, key="a")])) == [2]


def test_a_late_record_stands_before_the_newer_ones_that_wait() -> None:
    gate = gate_with(1, 5, 9)

    gate.admit([record(3), record(7)])

    order = []
    last = record(1)
    while following := gate.release_all([last]):
        last = following[0]
        order.append(last.id)
    assert order == [3, 5, 7, 9]


def test_what_is_beyond_the_limit_leaves_memory_and_is_read_again() -> None:
    gate = gate_with(1, 2, 3, 4, waiting_per_key_max=2)

    assert ids(gate.take_dropped()) == [4]
    assert gate.deferred_keys == {KEY: 4}
    assert gate.rereads.wanted(9) == [], "not before what waits has gone"
    for one in (1, 2, 3):
        gate.release_all([record(one)])
    assert gate.rereads.wanted(9) == [Reread(KEY, 4)]


def test_while_a_key_is_read_again_nothing_newer_of_it_goes() -> None:
    gate = gate_with(1, 2, 3, waiting_per_key_max=1)
    gate.take_dropped()
    gate.release_all([record(1)])
    gate.release_all([record(2)])

    assert gate.admit([record(9)]) == []
    assert ids(gate.take_dropped()) == [9]
    assert gate.rereads.answered(Reread(KEY, 3), complete_to=None)
    assert ids(gate.admit([record(3), record(9)])) == [3]


def test_a_reread_that_was_cut_goes_on_behind_the_cut() -> None:
    gate = gate_with(1, 2, 3, waiting_per_key_max=1)
    gate.take_dropped()
    gate.release_all([record(1)])
    gate.release_all([record(2)])

    assert gate.rereads.answered(Reread(KEY, 3), complete_to=5)
    assert ids(gate.admit([record(3), record(5)])) == [3]
    gate.rereads.settle([Reread(KEY, 3)])
    gate.release_all([record(3)])
    gate.release_all([record(5)])
    assert gate.rereads.wanted(9) == [Reread(KEY, 6)]


def test_a_late_record_does_not_pass_what_a_cut_reread_has_not_shown_yet() -> None:
    gate = KeyGate(waiting_per_key_max=1)
    gate.admit([record(number) for number in (1, 2, 3, 4, 9)])
    gate.take_dropped()
    gate.release(KEY, 1)
    gate.release(KEY, 2)
    (wish,) = gate.rereads.wanted(10)
    # The limit was reached before any record of this key; the look-back, read before it, shows one that came late.
    assert gate.rereads.answered(wish, complete_to=1)
    assert gate.admit([record(7)]) == []
    gate.rereads.settle([wish])
    assert gate.rereads.wanted(10) == [Reread(KEY, 3)]


def test_nor_does_it_where_a_failed_record_behind_both_holds_their_key() -> None:
    gate = gate_with(1, 2)
    gate.hold(KEY, 9)
    gate.take_dropped()
    gate.release(KEY, 1)
    (wish,) = gate.rereads.wanted(10)
    assert wish == Reread(KEY, 2)

    assert gate.rereads.answered(wish, complete_to=1)
    assert gate.admit([record(7)]) == []
    gate.rereads.settle([wish])

    assert gate.rereads.wanted(10) == [wish]
    assert not gate.is_turn_of(KEY, 9)


def test_a_held_record_has_its_turn_once_a_read_of_its_topic_shows_that_nothing_before_it_is_left() -> None:
    gate = gate_with(1, 2, 3, waiting_per_key_max=1)
    gate.take_dropped()
    gate.release_all([record(1)])
    gate.release_all([record(2)])
    gate.hold(KEY, 7)
    assert not gate.is_turn_of(KEY, 7), "3 goes first, and was dropped from memory"

    gate.rereads.nothing_left("orders", 4, set())
    gate.rereads.nothing_left("others", 3, set())
    gate.rereads.nothing_left("orders", 3, {KEY})
    assert not gate.is_turn_of(KEY, 7)
    gate.rereads.nothing_left("orders", 3, set())
    assert gate.is_turn_of(KEY, 7)
    assert gate.rereads.wanted(10) == []


def test_an_answer_is_of_no_use_once_something_lower_was_deferred() -> None:
    gate = gate_with(1, 2, 8, waiting_per_key_max=1)
    gate.take_dropped()
    gate.release_all([record(1)])
    gate.release_all([record(2)])
    gate.admit([record(5)])

    assert not gate.rereads.answered(Reread(KEY, 8), complete_to=None)
    assert gate.rereads.wanted(9) == [Reread(KEY, 5)]


def test_a_failed_record_holds_its_key_and_no_other() -> None:
    gate = gate_with(1, 2)
    gate.hold(KEY, 1)

    assert ids(gate.take_dropped()) == [2]
    assert ids(gate.admit([record(3), record(4, key="other")])) == [4]
    assert gate.is_turn_of(KEY, 1)
    assert ids(gate.admit([record(1)])) == [1]
    gate.release_all([record(1)])
    assert gate.rereads.wanted(9) == [Reread(KEY, 2)]


def test_an_older_record_may_pass_the_held_one_and_a_newer_one_may_not() -> None:
    gate = gate_with(5)
    gate.hold(KEY, 5)

    assert ids(gate.admit([record(3), record(7)])) == [3]
    assert not gate.is_turn_of(KEY, 5), "something of the key is with the producer"
    gate.release_all([record(3)])
    assert gate.is_turn_of(KEY, 5)


def test_what_was_deferred_before_a_held_record_is_read_before_it_goes() -> None:
    gate = gate_with(9)
    gate.admit([record(3)])
    gate.hold(KEY, 9)
    gate.take_dropped()

    assert not gate.is_turn_of(KEY, 9)
    assert gate.rereads.wanted(9) == [Reread(KEY, 3)]
    assert gate.rereads.answered(Reread(KEY, 3), complete_to=None)
    assert ids(gate.admit([record(3)])) == [3]


def test_held_records_go_in_order_and_one_that_ends_lets_the_next_have_its_turn() -> None:
    gate = KeyGate()
    gate.hold(KEY, 4)
    gate.hold(KEY, 2)

    assert not gate.is_turn_of(KEY, 4)
    gate.release(KEY, 2)
    assert gate.is_turn_of(KEY, 4)
    gate.release(KEY, 4)
    assert gate.keys.owner_of(KEY) is None


def test_a_held_record_that_ends_while_an_older_one_is_with_the_producer_lets_nothing_go_before_that() -> None:
    gate = gate_with(5)
    gate.hold(KEY, 5)
    assert ids(gate.admit([record(3), record(7)])) == [3]

    assert gate.release(KEY, 5) is None

    assert gate.is_busy(KEY)
    assert gate.admit([record(8)]) == []
    assert gate.rereads.wanted(9) == []
    gate.release_all([record(3)])
    assert gate.rereads.wanted(9) == [Reread(KEY, 7)]


def test_where_many_records_of_a_key_go_at_once_those_behind_a_failed_one_may_not_go_any_more() -> None:
    gate = KeyGate(pipelined=True)
    gate.admit([record(number) for number in (3, 5, 7)])
    assert not gate.is_behind(record(7))

    gate.hold(KEY, 5)

    assert [gate.is_behind(record(number)) for number in (3, 5, 7)] == [False, False, True]
    assert not gate.is_behind(record(8, key=None))


def test_where_many_records_of_a_key_go_at_once_a_failed_one_that_is_delivered_after_all_frees_it() -> None:
    gate = KeyGate(pipelined=True)
    gate.admit([record(1)])
    gate.hold(KEY, 1)
    assert gate.admit([record(2)]) == []

    assert gate.release_all([record(1)]) == []

    assert gate.held == {}
    assert gate.rereads.wanted(9) == [Reread(KEY, 2)]


def test_keys_of_held_topics_are_not_read_again_yet() -> None:
    gate = gate_with(1, 2)
    gate.hold(KEY, 1)
    gate.release(KEY, 1)

    assert gate.rereads.wanted(9, {"orders"}) == []
    assert gate.rereads.wanted(9) == [Reread(KEY, 2)]


def test_no_more_keys_are_read_again_at_once_than_is_asked_for() -> None:
    gate = KeyGate()
    for key in "abc":
        gate.admit([record(1, key=key), record(2, key=key)])
        gate.hold(("orders", key), 1)
        gate.release(("orders", key), 1)

    assert gate.rereads.wanted(2) == [Reread(("orders", "a"), 2), Reread(("orders", "b"), 2)]


@pytest.mark.parametrize(("read_from", "may"), [(2, True), (3, False)])
def test_a_probe_is_the_lowest_of_its_key_in_what_was_read(read_from: int, may: bool) -> None:
    gate = gate_with(1, 2)
    gate.defer_waiting(["orders"])
    gate.release_all([record(1)])

    assert gate.take_turn(record(4), read_from) is may


def test_a_probe_may_not_pass_a_held_record_nor_one_with_the_producer() -> None:
    busy, held = gate_with(1), gate_with(1)
    held.hold(KEY, 1)

    assert not busy.take_turn(record(2), 0)
    assert not held.take_turn(record(2), 0)
    assert held.take_turn(record(1), 0)
    assert held.keys.owner_of(KEY) == 1


def test_what_comes_after_a_late_record_that_was_dropped_waits_for_its_reread_once_a_chain_is_cut() -> None:
    gate = gate_with(1, 3, 5)
    gate.chained.begin(record(1), 3)
    gate.admit([record(2)])
    gate.defer_waiting(["orders"])

    assert ids(gate.chained.cut()) == [1]

    assert ids(gate.take_dropped()) == [2, 3, 5]
    assert gate.release_all([record(1)]) == []
    assert gate.rereads.wanted(9) == [Reread(KEY, 2)]


def test_once_a_chain_is_cut_nothing_of_it_waits_behind_a_record_that_came_to_be_held() -> None:
    gate = gate_with(1, 3, 5)
    gate.chained.begin(record(1), 3)
    gate.hold(KEY, 2)

    assert ids(gate.chained.cut()) == [1]

    assert gate.release_all([record(1)]) == []
    assert gate.is_turn_of(KEY, 2)


def test_late_records_that_come_before_and_after_a_chain_is_cut_go_in_order() -> None:
    gate = gate_with(10, 13, 15, 19)
    gate.chained.begin(record(10), 4)
    gate.admit([record(11), record(14)])
    assert ids(gate.chained.cut()) == [10]
    gate.admit([record(12)])

    order = []
    last = record(10)
    while following := gate.release_all([last]):
        last = following[0]
        order.append(last.id)
    assert order == [11, 12, 13, 14, 15, 19]


class GateMachine(RuleBasedStateMachine):
    """A key's rows come, some of them late, fail, wait, are read again, go together: none goes before one with a lower
    id that is there already, and none is forgotten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = KeyGate(waiting_per_key_max=4)
        self.chain: list[int] = []
        """What went together and is not delivered."""
        self.last_id = 0
        self.unused: set[int] = set()
        """Ids of rows that are not committed yet, though later ones are."""
        self.pending: set[int] = set()
        self.with_producer: set[int] = set()
        self.held: set[int] = set()
        self.delivered: list[int] = []

    def _go(self, records: list[Record]) -> None:
        fresh = set(ids(records)) - self.with_producer
        self.with_producer |= fresh
        for one in fresh:
            assert not [other for other in self.pending - self.with_producer if other < one]

    def _admit(self, record_ids: list[int]) -> None:
        in_memory = self.with_producer | self.gate.waiting_ids()
        fresh = [record(one) for one in record_ids if one not in in_memory and one not in self.held]
        self._go(self.gate.admit(fresh))
        self.gate.take_dropped()

    @rule(late=st.lists(st.booleans(), min_size=1, max_size=4))
    def write(self, late: list[bool]) -> None:
        new = list(range(self.last_id + 1, self.last_id + 1 + len(late)))
        self.last_id += len(late)
        self.unused |= {one for one, is_late in zip(new, late, strict=True) if is_late}
        self._commit(set(new) - self.unused)

    @precondition(lambda self: self.unused)
    @rule(data=st.data())
    def commit_late(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(self.unused)))
        self.unused.remove(one)
        self._commit({one})

    def _commit(self, record_ids: set[int]) -> None:
        self.pending |= record_ids
        self._admit(sorted(record_ids))

    @precondition(lambda self: self.with_producer)
    @rule()
    def deliver(self) -> None:
        (one,) = self.chain[:1] or self.with_producer
        self.with_producer.remove(one)
        self.pending.remove(one)
        self.delivered.append(one)
        self.chain = self.chain[1:]
        self._go(self.gate.release_all([record(one)]))

    @precondition(lambda self: self.with_producer and not self.chain)
    @rule(rows=st.integers(1, 5))
    def go_together(self, rows: int) -> None:
        head = record(*self.with_producer)
        self.chain = ids(self.gate.chained.queue_of(head)[:rows])
        if self.chain:
            records = [record(one) for one in self.chain]
            self.gate.chained.begin(head, len(self.chain))
            self._go(records)

    @precondition(lambda self: self.chain)
    @rule()
    def cut(self) -> None:
        assert ids(self.gate.chained.undelivered()) == self.chain
        assert ids(self.gate.chained.cut()) == self.chain[:1]
        self.with_producer = set(self.chain[:1])
        self.chain = []
        assert not self.gate.chained.are_open

    @rule(rows_max=st.integers(0, 4))
    def limit(self, rows_max: int) -> None:
        self.gate.limit_waiting(rows_max)
        assert len(self.gate.waiting_ids()) <= rows_max
        self.gate.take_dropped()

    @precondition(lambda self: self.with_producer and not self.chain)
    @rule()
    def fail(self) -> None:
        (one,) = self.with_producer
        self.with_producer.remove(one)
        self.held.add(one)
        self.gate.hold(KEY, one)
        self.gate.take_dropped()

    @precondition(lambda self: self.unused)
    @rule(data=st.data())
    def hold_late(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(self.unused)))
        self.unused.remove(one)
        self.pending.add(one)
        self.held.add(one)
        self.gate.hold(KEY, one)
        self.gate.take_dropped()

    @precondition(lambda self: self.with_producer)
    @rule()
    def hold_topic(self) -> None:
        self.gate.defer_waiting([KEY[0]])
        self.gate.take_dropped()

    @precondition(lambda self: self.held)
    @rule()
    def discard(self) -> None:
        one = min(self.held)
        self.held.remove(one)
        self.pending.remove(one)
        self.delivered.append(one)
        following = self.gate.release(KEY, one)
        self._go([] if following is None else [following])

    @precondition(lambda self: self.held)
    @rule()
    def try_again(self) -> None:
        one = min(self.held)
        if self.gate.is_turn_of(KEY, one):
            self.held.remove(one)
            self._go(self.gate.admit([record(one)]))
            assert one in self.with_producer

    @precondition(lambda self: self.gate.rereads.are_wanted(set()))
    @rule(rows_max=st.integers(1, 5))
    def read_again(self, rows_max: int) -> None:
        wish = self.gate.rereads.wanted(1)[0]
        shown = sorted(one for one in self.pending if one >= wish.from_id)[:rows_max]
        complete_to = shown[-1] if len(shown) == rows_max else None
        assert self.gate.rereads.answered(wish, complete_to)
        self._admit(shown)
        self.gate.rereads.settle([wish])

    @invariant()
    def one_at_a_time(self) -> None:
        assert self.with_producer == set(self.chain) or (len(self.with_producer) == 1 and not self.chain)

    def teardown(self) -> None:
        for _ in range(4 * self.last_id + 4):
            if self.with_producer:
                self.deliver()
            elif self.gate.rereads.are_wanted(set()):
                self.read_again(3)
            elif self.held:
                self.try_again()
        assert sorted(self.delivered) == sorted(set(range(1, self.last_id + 1)) - self.unused)


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=150, stateful_step_count=40)
