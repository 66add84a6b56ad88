"""What is with the producer for too long: told once, and held where it takes too much of what may be in flight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.routes import Route
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import STALL_SECONDS, WATCH_SECONDS, Watch
from tests.unit.records import record

LIMITS = RelayLimits(max_in_flight_rows=100)


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
