"""What is with the producer for too long: told once, and held where it takes too much of what may be in flight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.routes import Route
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import STALL_SECONDS, WATCH_SECONDS, Watch
from tests.unit.records import record

LIMITS = RelayLimits(max_in_flight_rows=100, batch_rows=10)


class Bench:
    """A watch whose clock the test moves, over records that the test sends and has delivered."""

    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[tuple[str, object]] = []
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(event=lambda name, **fields: self.events.append((name, fields.get("topic")))),
            dice=None,
        )
        self.state = State(cast(Ports, cast(Any, ports)), LIMITS, (), Route(), token=1)
        self.watch = Watch(self.state)

    def send(self, topic: str, first_id: int, count: int) -> None:
        records = [record(first_id + place, topic=topic, key=None) for place in range(count)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        self.state.lanes.published(records)

    def deliver(self, topic: str, first_id: int, count: int) -> None:
        self.state.lanes.count_in_flight(self.state.lanes[topic], -count)
        self.state.ledger.leave(range(first_id, first_id + count))

    def send_keyed(self, topic: str, keys: str, first_id: int, count: int) -> list[int]:
        """Read so many records, round these keys; return the ids of those that went to the producer."""
        records = [record(first_id + place, topic=topic, key=keys[place % len(keys)]) for place in range(count)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        going = self.state.gate.admit(records)
        self.state.forget_dropped()
        self.state.lanes.published(going)
        return [each.id for each in going]

    def deliver_keyed(self, topic: str, record_id: int) -> list[int]:
        """Have the producer report a record; return the ids of those that went to it by that."""
        following = self.state.gate.release_all([self.state.ledger.records[record_id]])
        self.deliver(topic, record_id, 1)
        self.state.lanes.published(following)
        return [each.id for each in following]

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / WATCH_SECONDS)):
            self.now += WATCH_SECONDS
            self.watch.look(self.now)

    @property
    def held(self) -> set[str]:
        return set(self.state.lanes.breakers.open)


def test_a_stuck_topic_that_takes_a_quarter_is_held_until_it_moves() -> None:
    bench = Bench()
    bench.send("stuck", 1, 25)
    bench.wait(STALL_SECONDS)
    assert bench.held == set()
    bench.wait(WATCH_SECONDS)
    assert bench.held == {"stuck"}
    bench.deliver("stuck", 1, 1)
    bench.wait(WATCH_SECONDS)
    assert bench.held == set()
    assert bench.events == [
        ("in_flight_stalled", "stuck"), ("breaker_opened", "stuck"), ("breaker_closed", "stuck"),
        ("in_flight_moving", None),
    ]  # fmt: skip


def test_a_stuck_topic_that_takes_less_is_told_and_not_held() -> None:
    bench = Bench()
    bench.send("stuck", 1, 24)
    bench.wait(STALL_SECONDS * 3)
    assert bench.held == set()
    assert bench.events == [("in_flight_stalled", "stuck")]


def test_one_stuck_topic_does_not_hide_another_and_each_goes_on_by_itself() -> None:
    bench = Bench()
    bench.send("small", 1, 1)
    bench.send("big", 2, 30)
    bench.send("large", 40, 40)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.held == {"big", "large"}
    bench.deliver("small", 1, 1)
    bench.deliver("big", 2, 30)
    bench.wait(WATCH_SECONDS)
    assert bench.held == {"large"}


def test_topics_that_move_are_not_held_however_much_they_have_in_flight() -> None:
    bench = Bench()
    bench.send("moves", 1, 90)
    for record_id in range(1, 40):
        bench.wait(WATCH_SECONDS)
        bench.deliver("moves", record_id, 1)
    assert bench.held == set()
    assert bench.events == []


def test_records_that_only_wait_for_the_database_are_not_called_stuck() -> None:
    bench = Bench()
    bench.send("delivered", 1, 3)
    bench.state.lanes["delivered"].in_flight = 0
    bench.state.settling.ids += [1, 2, 3]
    bench.wait(STALL_SECONDS * 2)
    assert bench.events == []


def test_where_memory_is_full_every_stuck_topic_is_held_and_makes_room_for_others() -> None:
    bench = Bench()
    ledger = bench.state.ledger
    bench.send("stuck", 1, 80)
    bench.send("small", 90, 20)
    bench.state.is_crowded = True
    assert ledger.rows_free == 0
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.held == {"stuck", "small"}
    assert ledger.rows_free == LIMITS.max_in_flight_rows // 2
    bench.deliver("small", 90, 20)
    bench.deliver("stuck", 1, 79)
    bench.wait(WATCH_SECONDS)
    assert bench.held == set()
    assert ledger.rows_free == LIMITS.max_in_flight_rows - 1


def test_where_one_partition_is_stuck_what_waits_behind_it_leaves_memory_and_the_rest_of_the_topic_goes_on() -> None:
    bench = Bench()
    # "s" and "t" go to the stuck partition, the others get their reports.
    assert bench.send_keyed("one", "abst", 1, 80) == [1, 2, 3, 4]
    going = [1, 2]
    bench.state.is_crowded = True
    while len(bench.state.ledger) > 40:
        going = [following for each in going for following in bench.deliver_keyed("one", each)]
    assert sorted(bench.state.ledger.records) == sorted([*range(3, 81, 4), *range(4, 81, 4)])

    bench.wait(STALL_SECONDS + WATCH_SECONDS)

    assert bench.held == set()
    assert sorted(bench.state.ledger.records) == [3, 4]
    assert bench.state.gate.deferred_keys == {("one", "s"): 7, ("one", "t"): 8}
    # What comes later of these keys takes no room either; the others are not read again.
    assert bench.send_keyed("one", "abst", 81, 4) == [81, 82]
    assert sorted(bench.state.ledger.records) == [3, 4, 81, 82]
    bench.deliver_keyed("one", 3)
    assert [wish.from_id for wish in bench.state.gate.rereads.wanted(10)] == [7]


def test_a_stuck_topic_is_held_where_nothing_waits_behind_what_the_producer_has() -> None:
    bench = Bench()
    bench.state.is_crowded = True
    bench.send_keyed("one", "abcdefgh", 1, 8)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.held == {"one"}


def test_a_stuck_topic_is_held_at_once_where_the_producer_has_a_quarter_of_all() -> None:
    bench = Bench()
    bench.state.is_crowded = True
    bench.send_keyed("one", "".join(map(chr, range(65, 95))), 1, 60)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.held == {"one"}


def test_topics_that_get_stuck_one_after_the_other_do_not_multiply_what_is_in_memory() -> None:
    bench = Bench()
    first_id = 1
    for place in range(20):
        topic = f"topic-{place}"
        rows = bench.state.ledger.rows_free
        bench.send(topic, first_id, rows)
        first_id += rows
        bench.state.is_crowded = True
        bench.wait(STALL_SECONDS + WATCH_SECONDS)
        assert topic in bench.held
    # What a fetch is still worth.
    assert bench.state.ledger.rows_free == LIMITS.fetch_rows_min == 5
    assert len(bench.state.ledger) == 150 + 18 * 5
