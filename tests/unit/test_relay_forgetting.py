"""What is kept of a topic is forgotten once nothing is left of it, where there are many topics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import Report
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.rows.records import NO_HISTORY
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.fetch.forgetting import forget_idle_topics
from outboxd.relay.fetch.reading import Reading
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.lanes import LOOK_SECONDS
from outboxd.relay.ports import Fetched, Pause
from outboxd.relay.report.histories import NEIGHBOURS_SECONDS
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import OUTAGE_SECONDS, Watch
from tests.unit.records import record

STALL_SECONDS = RelayLimits().stall_seconds
WATCH_SECONDS = 1.0
"""So often the watch looks."""

KEPT_MAX = 20
ROUTES = [Route("each.*", Confirm.EACH), Route("none.*", Confirm.NONE)]


class Bench:
    """A relay's memory, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            store=SimpleNamespace(begin_fetch=lambda *_: None),
            observer=SimpleNamespace(
                wants_rows=False,
                phase=lambda *_: None,
                event=lambda *_, **__: None,
                delivered=lambda *_: None,
                acknowledged_after=lambda *_: None,
            ),
            dice=None,
            publisher=SimpleNamespace(placement=lambda topic: None, connection_trouble=lambda: None),
        )
        self.state = State(cast(Ports, cast(Any, ports)), RelayLimits(), ROUTES, Route(), token=1)
        self.last_id = 0

    def send(self, *topics: str) -> list[int]:
        """Have the producer take a record of each topic."""
        records = [record(self.last_id + place, topic=topic, key=None) for place, topic in enumerate(topics, 1)]
        self.last_id += len(records)
        self.state.lanes.meet(topics)
        self.state.ledger.enter(records)
        self.state.lanes.published(records)
        return [each.id for each in records]

    def deliver(self, *record_ids: int) -> None:
        reports = [Report(self.state.ledger.records[record_id], None, 0, record_id) for record_id in record_ids]
        self.state.aftermath.take(reports, self.now)
        self.state.ledger.leave(record_ids)

    @property
    def topics(self) -> set[str]:
        return {lane.topic for lane in self.state.lanes.topics()}

    def forget(self) -> set[str]:
        """Meet so many topics that a look pays, and return what is left of all."""
        self.state.lanes.meet([f"idle.{number}" for number in range(2 * KEPT_MAX)])
        forget_idle_topics(self.state, self.now)
        return self.topics


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("outboxd.relay.memory.lanes.LANES_KEPT_MAX", KEPT_MAX)
    return Bench()


def test_a_topic_of_its_own_in_each_row_takes_no_more_memory_the_longer_it_goes_on(bench: Bench) -> None:
    reading = Reading(bench.state)
    reading.loading.is_done = True
    reading.sweeping.next_at = float("inf")
    for first_id in range(1, 2_000, 10):
        bench.now += 1.0
        reading.fetch(bench.now)
        rows = [record(first_id + place, topic=f"topic-{first_id + place}") for place in range(10)]
        reading.on_fetched(Fetched(rows, 0))
        bench.state.lanes.published(bench.state.ready)
        bench.state.ready.clear()
        bench.deliver(*[row.id for row in rows])
        recent = 10 * (NEIGHBOURS_SECONDS + 1)
        assert len(bench.topics) <= max(KEPT_MAX, 2 * recent) + len(rows)


def test_topics_are_not_forgotten_while_anything_is_left_of_them(bench: Bench) -> None:
    state, lanes, topics = bench.state, bench.state.lanes, bench.state.topics
    bench.send("in flight")
    state.ledger.enter([record(90, topic="in memory", key=None)])
    lanes.meet(["in memory", "each.held", "deferred key", "broken", "paused", "stormed", "catching up", "just now"])
    state.held.add(HeldRecord(91, "each.held", ("each.held", None), NO_HISTORY, HeldState.SCHEDULED, "retry", 0.0))
    state.gate.keys.defer(("deferred key", "k"), record(92, topic="deferred key"))
    state.aftermath.holding.open_breaker("broken", fault_of(29), "denied", bench.now)
    lanes.pause([Pause("paused", 0, "anna", None)], bench.now)
    lanes.storm("stormed", fault_of(10))
    topics.hold("catching up", HoldReason.PAUSED, bench.now)
    topics.split([record(93, topic="catching up")], ())
    topics.release("catching up", HoldReason.PAUSED, bench.now)
    bench.deliver(*bench.send("just now"))

    left = bench.forget()

    assert left == {
        "in flight", "in memory", "each.held", "deferred key", "broken", "paused", "stormed", "catching up", "just now"
    }  # fmt: skip
    assert state.gate.serial_topics == {"each.held"}


def test_a_topic_that_was_forgotten_is_as_good_as_new_when_it_is_met_again(bench: Bench) -> None:
    state, lanes, topics = bench.state, bench.state.lanes, bench.state.topics
    lanes.meet(["each.one", "none.one", "stormed", "paused"])
    topics.hold("each.one", HoldReason.BREAKER, bench.now - 30.0)
    topics.release("each.one", HoldReason.BREAKER, bench.now)
    lanes.storms.calm("stormed", 10)
    assert topics.own_time("each.one", bench.now) == bench.now - 30.0

    assert not {"each.one", "none.one", "stormed", "paused"} & bench.forget()

    assert not state.gate.serial_topics | lanes.unconfirmed_topics
    assert topics.own_time("each.one", bench.now) == bench.now
    assert not lanes.storms.is_watched("stormed", 10, 1, bench.now)
    lanes.pause([Pause("paused", 0, "anna", None)], bench.now)
    lanes.meet(["each.one", "none.one", "paused"])
    assert (state.gate.serial_topics, lanes.unconfirmed_topics) == ({"each.one"}, {"none.one"})
    assert set(topics.held) == {"paused"}


def test_few_topics_are_all_kept_and_many_that_are_needed_are_looked_through_seldom(bench: Bench) -> None:
    lanes = bench.state.lanes
    lanes.meet(map(str, range(KEPT_MAX)))
    assert not lanes.are_many(bench.now)
    bench.send(*map(str, range(KEPT_MAX, 3 * KEPT_MAX)))
    forget_idle_topics(bench.state, bench.now)
    assert len(bench.topics) == 2 * KEPT_MAX

    assert not lanes.are_many(bench.now)
    assert lanes.are_many(bench.now + LOOK_SECONDS)
    lanes.meet([f"new {number}" for number in range(2 * KEPT_MAX)])
    assert not lanes.are_many(bench.now)
    lanes.meet(["one more"])
    assert lanes.are_many(bench.now)


def test_what_was_delivered_to_a_topic_that_is_forgotten_still_shows_that_something_moves(bench: Bench) -> None:
    watch = Watch(bench.state)
    bench.send(*["stuck"] * RelayLimits().max_in_flight_rows)
    while bench.now < 100.0 + STALL_SECONDS + OUTAGE_SECONDS:
        bench.now += WATCH_SECONDS
        watch.look(bench.now)
        if bench.now == 100.0 + STALL_SECONDS:
            bench.deliver(*bench.send("moves"))
    assert "moves" not in bench.forget()
    assert not watch.nothing_moves(bench.now)
    assert bench.state.lanes.last_delivered_at == 100.0 + STALL_SECONDS


def test_a_storm_counts_on_in_a_topic_that_is_forgotten_meanwhile(bench: Bench) -> None:
    guard, code = bench.state.lanes.storms, own_fault("MSG_SIZE_TOO_LARGE").code
    bench.state.lanes.meet(["orders"])
    assert not any(guard.failed_for_good("orders", code, f"k{number}", number) for number in range(19))

    assert "orders" not in bench.forget()

    assert guard.failed_for_good("orders", code, "k19", 19)
