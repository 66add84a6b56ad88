"""When a relay that runs until nothing is left ends: what only an operator or Kafka could let go is not waited for."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason
from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import NO_HISTORY, FailureHistory
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.ending import RelayEnd, consider_empty
from outboxd.relay.fetch.reading import Reading
from outboxd.relay.fetch.recovering import TRIED_SECONDS
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.refusals import STUCK_TRIES
from outboxd.relay.ports import RecoverFailed
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import OUTAGE_SECONDS, Watch
from tests.unit.records import record

DEATH = DeadLetter(DeathReason.INVALID, own_fault("INVALID_HEADERS"), "why", 1, holds_key=False)
WATCH_SECONDS = 1.0
"""So often the watch looks."""


class Bench:
    """An outbox that was read and swept to its end."""

    def __init__(self) -> None:
        self.now = 100.0
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(event=lambda *_, **__: None),
            publisher=SimpleNamespace(begin_recover=lambda *_: None, connection_trouble=lambda: None),
            dice=None,
        )
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1)
        self.reading = Reading(self.state)
        self.reading.loading.is_done = self.reading.read_all = True
        self.reading.sweeping.swept_empty = True
        self.watch = Watch(self.state)

    def hold(
        self, record_id: int, state: HeldState, *, topic: str = "t", key: str = "k", letter: int | None = None
    ) -> None:
        history = NO_HISTORY if letter is None else FailureHistory(1, letter)
        self.state.held.add(HeldRecord(record_id, topic, (topic, key), history, state, "why", self.now))

    def send(self, topic: str, *, record_id: int = 1, key: str = "k") -> None:
        records = [record(record_id, topic=topic, key=key)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        self.state.lanes.published(records)

    @property
    def end(self) -> RelayEnd | None:
        return consider_empty(self.state, self.reading, self.watch, self.now)


def test_a_wanted_record_is_waited_for() -> None:
    bench = Bench()
    bench.hold(1, HeldState.WANTED)
    assert bench.end is None
    bench.state.held.remove(1)
    assert bench.end == RelayEnd("empty")


def test_a_retry_or_a_replay_of_a_paused_topic_is_not_waited_for() -> None:
    bench = Bench()
    bench.hold(1, HeldState.WANTED)
    bench.hold(2, HeldState.WANTED, key="other", letter=7)
    bench.state.topics.hold("t", HoldReason.PAUSED, bench.now)
    assert bench.end == RelayEnd("empty")


def test_what_stands_behind_a_dead_letter_that_holds_its_key_is_not_waited_for() -> None:
    bench = Bench()
    bench.hold(1, HeldState.DEAD, letter=7)
    bench.hold(2, HeldState.WANTED)
    assert bench.end == RelayEnd("empty")


def test_behind_a_breaker_it_ends_only_when_all_else_was_read() -> None:
    bench = Bench()
    fault = own_fault("IN_FLIGHT_TOO_OLD")
    bench.state.aftermath.holding.open_breaker("t", fault, "stuck", bench.now)
    bench.reading.read_all = False
    assert bench.end is None
    bench.reading.read_all = True
    bench.hold(1, HeldState.WANTED, topic="healthy")
    assert bench.end is None
    bench.state.held.remove(1)
    assert bench.end == RelayEnd("blocked", ("t",))


def test_behind_a_held_partition_it_ends_once_nothing_else_of_the_topic_is_under_way() -> None:
    bench = Bench()
    two = Placement(DEFAULT_PARTITIONER, 2)
    sick, well = (next(key for key in map(str, count()) if two.partition_of(key) == place) for place in (0, 1))
    bench.send("t", key=sick)
    stuck = list(bench.state.ledger.records.values())
    bench.state.stuck.hold("t", (two, {0}), stuck, bench.now)
    bench.send("t", record_id=2, key=well)
    assert bench.end is None
    bench.state.lanes.count_in_flight(bench.state.lanes["t"], -1)
    bench.state.ledger.leave([2])
    assert bench.end == RelayEnd("blocked", ("t",))


def test_it_ends_where_nothing_is_delivered_for_long() -> None:
    bench = Bench()
    bench.send("t")
    began_at = bench.now
    while bench.now < began_at + OUTAGE_SECONDS:
        assert bench.end is None
        bench.now += WATCH_SECONDS
        bench.watch.look(bench.now)
    bench.now += WATCH_SECONDS
    bench.watch.look(bench.now)
    assert bench.end == RelayEnd("blocked", ("t",))


def test_it_ends_where_transactions_cannot_be_recovered_for_long() -> None:
    bench = Bench()
    recovering = bench.reading.recovering
    recovering.begin(cast(Any, SimpleNamespace(settled_transaction=0, lineage="")))
    recovering.take(RecoverFailed("no broker"))
    assert bench.end is None
    bench.now += TRIED_SECONDS
    recovering.take(RecoverFailed("no broker"))
    assert bench.end == RelayEnd("blocked")


def refuse(bench: Bench, settlement: Settlement, *, times: int = STUCK_TRIES) -> None:
    settling = bench.state.settling
    for _ in range(times):
        bench.now += 10.0
        settling.under_way = settling.refusals.take(bench.now) or settlement
        assert settling.refused(settling.under_way, bench.now)


def test_it_ends_where_nothing_is_left_but_rows_that_the_database_refuses_to_settle_again_and_again() -> None:
    bench = Bench()
    bench.state.ledger.enter([record(1)])
    for _ in range(STUCK_TRIES):
        assert bench.end is None
        refuse(bench, Settlement(delivered_ids=[1]), times=1)

    assert bench.end == RelayEnd("unsettled")
    bench.state.ledger.enter([record(2)])
    assert bench.end is None


def test_it_ends_though_what_the_database_refuses_is_tried_all_the_time() -> None:
    bench = Bench()
    bench.state.ledger.enter([record(1)])
    refuse(bench, Settlement(delivered_ids=[1]))
    bench.now += 10.0
    bench.state.settling.under_way = bench.state.settling.refusals.take(bench.now)
    assert bench.state.settling.under_way is not None
    assert bench.end == RelayEnd("unsettled")


def test_what_waits_behind_a_death_that_the_database_refuses_to_write_is_not_waited_for() -> None:
    bench = Bench()
    rows = [record(1, key="k"), record(2, key="k")]
    bench.state.ledger.enter(rows)
    assert bench.state.gate.admit(rows) == rows[:1]
    refuse(bench, Settlement(dead=[(1, DEATH)]))
    assert bench.end == RelayEnd("unsettled")


def test_where_memory_is_full_of_what_the_database_refuses_it_does_not_wait_for_what_is_not_read_yet() -> None:
    bench = Bench()
    bench.state.ledger.enter([record(1)])
    bench.reading.read_all = False
    refuse(bench, Settlement(delivered_ids=[1]))
    assert bench.end is None
    bench.state.is_crowded = True
    assert bench.end == RelayEnd("unsettled")


def test_behind_a_breaker_it_ends_though_the_database_refuses_to_settle_a_row_of_another_topic() -> None:
    bench = Bench()
    fault = own_fault("IN_FLIGHT_TOO_OLD")
    bench.state.aftermath.holding.open_breaker("t", fault, "stuck", bench.now)
    bench.state.ledger.enter([record(1, topic="other")])
    refuse(bench, Settlement(delivered_ids=[1]), times=1)
    assert bench.end is None, "it may be settled in a moment"
    refuse(bench, Settlement(), times=STUCK_TRIES - 1)
    assert bench.end == RelayEnd("blocked", ("t",))
