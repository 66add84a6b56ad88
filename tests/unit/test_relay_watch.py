"""What is with the producer for too long: told once, and held where it takes too much of what may be in flight."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import Report
from outboxd.policy.exchange.reads import Fetched
from outboxd.policy.faults import fault_named, own_fault
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import STORM_KEYS
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import OUTAGE_SECONDS, TOLD_MAX, Watch
from tests.unit.records import record

STALL_SECONDS = RelayLimits().stall_seconds
WATCH_SECONDS = 1.0
"""So often the watch looks."""

TWO = Placement(DEFAULT_PARTITIONER, 2)
LIMITS = RelayLimits(max_in_flight_rows=100, batch_rows=10)


class Bench:
    """A watch whose clock the test moves, over records that the test sends and has delivered."""

    def __init__(self, limits: RelayLimits = LIMITS, routes: Sequence[Route] = ()) -> None:
        self.now = 100.0
        self.events: list[tuple[str, object]] = []
        self.placement: Placement | None = None
        self.trouble: str | None = None
        self.causes: list[object] = []
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            observer=SimpleNamespace(
                event=self._event,
                wants_rows=False,
                delivered=lambda *told: None,
                acknowledged_after=lambda *told: None,
            ),
            dice=None,
            publisher=SimpleNamespace(
                placement=lambda topic: self.placement,
                misplaced=self._misplaced,
                connection_trouble=lambda: self.trouble,
            ),
        )
        self.state = State(cast(Ports, cast(Any, ports)), limits, routes, Route(), token=1)
        self.watch = Watch(self.state)

    def _event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields.get("topic")))
        if "cause" in fields:
            self.causes.append(fields["cause"])

    def _misplaced(self, topic: str) -> None:
        self.placement = None

    def send(self, topic: str, first_id: int, count: int) -> None:
        records = [record(first_id + place, topic=topic, key=None) for place in range(count)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        self.state.lanes.published(records)

    def open_breaker(self, topic: str, name: str) -> None:
        fault = fault_named(name)
        assert fault is not None
        self.state.aftermath.holding.open_breaker(topic, fault, fault.meaning, self.now)

    def deliver(self, topic: str, first_id: int, count: int) -> None:
        self.state.lanes.count_in_flight(self.state.lanes[topic], -count)
        self.state.ledger.leave(range(first_id, first_id + count))

    def send_keyed(self, topic: str, keys: str, first_id: int, count: int) -> list[int]:
        """Read so many records, round these keys; return the ids of those that went to the producer."""
        records = [record(first_id + place, topic=topic, key=keys[place % len(keys)]) for place in range(count)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        going = self.state.gate.admit(records)
        self.state.ledger.forget_dropped(self.state.gate)
        self.state.lanes.published(going)
        return [each.id for each in going]

    def send_each(self, topic: str, keys: Sequence[str], first_id: int) -> list[int]:
        """Read a record of each of these keys; return the ids of those that went to the producer."""
        going = self.records_of(topic, keys, first_id)
        self.state.lanes.published(going)
        return [each.id for each in going]

    def records_of(self, topic: str, keys: Sequence[str], first_id: int) -> list[Record]:
        """Read a record of each of these keys; return those that may go to the producer."""
        records = [record(first_id + place, topic=topic, key=key) for place, key in enumerate(keys)]
        self.state.lanes.meet([topic])
        self.state.ledger.enter(records)
        return self.state.gate.admit(records)

    def fetch(self, topic: str, keys: Sequence[str], first_id: int) -> list[int]:
        """Read them by a fetch, as the relay does."""
        records = [record(first_id + place, topic=topic, key=key) for place, key in enumerate(keys)]
        request = self.state.wishes.request(100, 1_000_000)
        admitted = self.state.admission.take(request, Fetched(records, 0), self.now)
        self.state.lanes.published(admitted.ready)
        return [each.id for each in admitted.ready]

    def report(self, topic: str, record_id: int, *, partition: int) -> None:
        """Have the producer report a record that the broker took."""
        reports = [Report(self.state.ledger.records[record_id], None, partition, 0)]
        self.state.aftermath.take(reports, self.now)

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


def test_a_topic_that_is_stuck_and_not_held_is_shown_with_the_cause_until_it_moves() -> None:
    bench = Bench()
    bench.trouble = "refused"
    bench.send("stuck", 1, 5)
    bench.wait(STALL_SECONDS)
    assert bench.watch.stalled == {}
    bench.wait(WATCH_SECONDS)
    assert bench.held == set()
    assert bench.watch.stalled == {"stuck": "refused"}
    bench.deliver("stuck", 1, 5)
    bench.wait(WATCH_SECONDS)
    assert bench.watch.stalled == {}


def test_each_of_several_small_topics_that_are_stuck_is_told_with_its_end() -> None:
    bench = Bench()
    bench.send("first", 1, 1)
    bench.send("second", 2, 1)
    bench.wait(STALL_SECONDS)
    bench.send("third", 3, 1)
    bench.wait(2 * WATCH_SECONDS)
    assert bench.events == [("in_flight_stalled", "first"), ("in_flight_stalled", "second")]
    bench.deliver("first", 1, 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.events[2:] == [("in_flight_moving", "first"), ("in_flight_stalled", "third")]
    assert list(bench.watch.stalled) == ["second", "third"]


def test_where_all_topics_are_stuck_a_few_are_told() -> None:
    bench = Bench()
    for number in range(TOLD_MAX + 5):
        bench.send(f"topic-{number}", number, 1)
    bench.wait(2 * STALL_SECONDS)
    assert bench.events == [("in_flight_stalled", f"topic-{number}") for number in range(TOLD_MAX)]


def test_a_transaction_that_stands_still_is_told_by_one_of_its_topics() -> None:
    bench = Bench()
    bench.state.pipelined = True
    bench.send("first", 1, 1)
    bench.send("second", 2, 1)
    bench.wait(2 * STALL_SECONDS)
    assert bench.events == [("in_flight_stalled", "first")]


def test_nothing_is_stuck_while_transactions_end_though_the_oldest_record_waits_for_the_last_of_its_batch() -> None:
    bench = Bench()
    bench.send("refused", 1, 5)
    for _ in range(3):
        bench.wait(STALL_SECONDS - WATCH_SECONDS)
        bench.watch.transaction_ended(bench.now)
    assert (bench.held, bench.events) == (set(), [])
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.events == [("in_flight_stalled", "refused")]


def test_a_topic_that_is_held_needs_nobody_else_to_say_that_it_is_stuck() -> None:
    bench = Bench()
    bench.send("stuck", 1, 25)
    bench.wait(STALL_SECONDS + 2 * WATCH_SECONDS)
    assert bench.held == {"stuck"}
    assert bench.watch.stalled == {}


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
        ("in_flight_moving", "stuck"),
    ]  # fmt: skip


def test_a_stuck_topic_is_told_with_what_the_client_said_of_its_connections() -> None:
    bench = Bench()
    bench.trouble = "broker 3 refuses"
    bench.send("stuck", 1, 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.causes == ["broker 3 refuses"]


def test_a_stuck_topic_that_takes_less_is_told_and_not_held() -> None:
    bench = Bench()
    bench.send("stuck", 1, 24)
    bench.wait(STALL_SECONDS * 3)
    assert bench.held == set()
    assert bench.events == [("in_flight_stalled", "stuck")]


def test_a_probe_that_waits_in_a_topic_on_hold_is_no_news_and_hides_none() -> None:
    bench = Bench()
    bench.send("missing", 1, 1)
    bench.open_breaker("missing", "UNKNOWN_TOPIC_OR_PART")
    bench.wait(STALL_SECONDS * 2)
    assert bench.events == [("breaker_opened", "missing")]
    bench.send("small", 2, 1)
    bench.wait(STALL_SECONDS * 2)
    assert bench.events[1:] == [("in_flight_stalled", "small")]
    assert not bench.watch.nothing_moves(bench.now)
    bench.deliver("small", 2, 1)
    bench.wait(WATCH_SECONDS * 2)
    assert bench.events[2:] == [("in_flight_moving", "small")]


def test_a_broker_that_is_away_is_seen_by_a_probe_too_that_waits_in_a_topic_on_hold() -> None:
    bench = Bench()
    bench.send("missing", 1, 1)
    bench.open_breaker("missing", "UNKNOWN_TOPIC_OR_PART")
    bench.wait(STALL_SECONDS + OUTAGE_SECONDS)
    assert bench.watch.nothing_moves(bench.now)


def test_topics_stand_still_whose_records_are_with_the_producer_for_longer_than_a_restart_of_a_broker_takes() -> None:
    bench = Bench()
    bench.send("stuck", 1, 1)
    bench.send("held", 2, 1)
    bench.open_breaker("held", "UNKNOWN_TOPIC_OR_PART")
    for number in range(round(OUTAGE_SECONDS / WATCH_SECONDS) + 2):
        assert bench.watch.still_topics == set()
        bench.send("moving", 10 + number, 1)
        bench.wait(WATCH_SECONDS)
        bench.deliver("moving", 10 + number, 1)
    bench.wait(WATCH_SECONDS)
    assert bench.watch.still_topics == {"stuck", "held"}
    bench.deliver("stuck", 1, 1)
    bench.deliver("held", 2, 1)
    bench.wait(WATCH_SECONDS)
    assert bench.watch.still_topics == set()


def test_a_topic_of_fire_and_forget_records_may_stand_still_while_the_producer_owes_reports_of_it_all_the_time() -> (
    None
):
    bench = Bench(routes=[Route("telemetry", confirm=Confirm.NONE)])
    for topic, first_id in (("telemetry", 1), ("telemetry", 2)):
        bench.send(topic, first_id, 1)
        # They are settled as soon as they are sent.
        bench.state.ledger.leave([first_id])
    bench.wait(OUTAGE_SECONDS)
    assert bench.watch.still_topics == set()
    bench.wait(2 * WATCH_SECONDS)
    assert bench.watch.still_topics == {"telemetry"}
    bench.deliver("telemetry", 1, 1)
    bench.wait(WATCH_SECONDS)
    assert bench.watch.still_topics == {"telemetry"}
    bench.deliver("telemetry", 2, 1)
    bench.wait(WATCH_SECONDS)
    assert bench.watch.still_topics == set()


def test_a_topic_that_is_still_stuck_when_its_hold_is_over_is_told() -> None:
    bench = Bench()
    bench.send("missing", 1, 1)
    bench.open_breaker("missing", "UNKNOWN_TOPIC_OR_PART")
    bench.wait(STALL_SECONDS * 2)
    bench.state.aftermath.holding.close_breaker("missing", bench.now)
    bench.wait(WATCH_SECONDS)
    assert bench.events == [
        ("breaker_opened", "missing"), ("breaker_closed", "missing"), ("in_flight_stalled", "missing"),
    ]  # fmt: skip


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


def keys_of(partition: int, count: int) -> list[str]:
    """Return so many keys that go to this partition of two."""
    keys = (f"key-{number}" for number in itertools.count())
    return list(itertools.islice((key for key in keys if TWO.partition_of(key) == partition), count))


def test_where_one_partition_is_stuck_with_as_many_keys_as_rows_the_others_keys_go_on() -> None:
    bench = Bench()
    bench.placement = TWO
    sick, well = keys_of(0, 40), keys_of(1, 20)
    assert bench.send_each("one", sick[:30], 1) == [*range(1, 31)]
    bench.wait(STALL_SECONDS + WATCH_SECONDS)

    assert bench.held == {"one"}
    assert "one" not in bench.state.topics.held
    assert bench.fetch("one", [*sick[30:], *well], 31) == [*range(41, 61)]
    assert bench.state.partitions.deferred == {"one": 31}
    bench.deliver_keyed("one", 41)
    assert bench.held == {"one"}

    bench.report("one", 1, partition=0)
    assert bench.held == set()
    assert bench.state.topics.deferred == {"one": 31}
    assert bench.state.partitions.deferred == {}


def test_a_second_partition_that_gets_stuck_later_makes_the_whole_topic_wait() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    bench.send_each("one", keys_of(1, 5), 31)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.state.topics.held.keys() == {"one"}
    assert bench.state.partitions.topics == set()
    told = [name for name, _ in bench.events if name != "in_flight_stalled"]
    assert told == ["partitions_held", "partitions_released", "breaker_opened"]


def test_a_partition_goes_on_once_nothing_that_was_stuck_there_is_in_memory_however_that_came() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    bench.deliver("one", 1, 30)
    bench.wait(WATCH_SECONDS)
    assert bench.held == set()
    assert bench.state.partitions.topics == set()


@pytest.mark.parametrize("keyless_rows", [0, 97])
def test_what_is_stuck_in_a_held_partition_or_without_a_key_beside_it_takes_half_of_the_room_at_most(
    keyless_rows: int,
) -> None:
    bench = Bench()
    bench.placement = TWO
    bench.state.is_crowded = True
    bench.send("one", 1, keyless_rows)
    bench.send_each("one", keys_of(0, 100 - keyless_rows), 1 + keyless_rows)
    assert bench.state.ledger.rows_free == 0
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.state.partitions.held_of("one") == {0}
    assert bench.state.ledger.rows_free == 50


def test_a_topic_that_fails_as_a_whole_waits_as_a_whole_though_a_partition_was_held() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    bench.fetch("one", keys_of(0, 31)[30:], 31)
    fault = own_fault("IN_FLIGHT_TOO_OLD")
    bench.state.aftermath.holding.open_breaker("one", fault, "no grant", bench.now)
    assert bench.state.topics.held.keys() == {"one"}
    assert bench.state.lanes.breakers.open["one"].message == "no grant"
    assert bench.state.partitions.topics == set()
    assert bench.state.topics.deferred == {"one": 31}


def test_a_stuck_topic_that_moves_again_by_failing_has_not_delivered_anything() -> None:
    bench = Bench()
    storms = bench.state.lanes.storms
    for key in range(STORM_KEYS - 1):
        storms.failed_for_good("stuck", 10, str(key), key)
    bench.send("stuck", 100, 25)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    bench.deliver("stuck", 100, 25)
    bench.wait(WATCH_SECONDS)
    assert bench.held == set()
    assert storms.failed_for_good("stuck", 10, "the last", 99)


def test_partitions_are_held_after_a_shorter_time_than_topics() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.send("two", 31, 30)
    bench.wait(5 * WATCH_SECONDS)
    assert bench.held == {"one"}
    assert bench.state.partitions.held_of("one") == {0}


def test_a_partition_is_held_for_a_quarter_of_the_bytes_too() -> None:
    bench = Bench(RelayLimits(max_in_flight_rows=10_000, max_in_flight_bytes=4_000, batch_rows=10))
    bench.placement = TWO
    # Each of them has 100.
    bench.send_each("one", keys_of(0, 9), 1)
    bench.wait(STALL_SECONDS)
    assert bench.held == set()
    bench.send_each("one", keys_of(0, 10)[9:], 10)
    bench.wait(5 * WATCH_SECONDS)
    assert bench.state.partitions.held_of("one") == {0}


def test_a_partition_of_slow_records_that_move_is_not_held() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", [*keys_of(0, 20), *keys_of(1, 40)], 1)
    for record_id in range(1, 21):
        bench.wait(WATCH_SECONDS)
        bench.deliver_keyed("one", record_id)
    assert bench.state.partitions.topics == set()


def stuck_in_one_of_two(bench: Bench, rows: int = 30) -> None:
    """The first partition of two is held."""
    bench.placement = TWO
    bench.send_each("one", keys_of(0, rows), 1)
    bench.wait(5 * WATCH_SECONDS)
    assert bench.state.partitions.held_of("one") == {0}


def test_a_partition_that_is_slow_is_not_taken_for_one_that_is_stuck() -> None:
    bench = Bench()
    bench.placement = TWO
    slow = keys_of(1, 60)
    bench.send_each("one", [*keys_of(0, 30), *slow[:5]], 1)
    for second in range(20):
        bench.wait(WATCH_SECONDS)
        # Each of them is with the producer for five seconds.
        bench.report("one", 31 + second, partition=1)
        bench.send_each("one", [slow[5 + second]], 36 + second)
    assert bench.state.partitions.held_of("one") == {0}
    assert bench.state.topics.held == {}


def test_a_topic_of_which_all_partitions_are_stuck_waits_as_a_whole_until_the_first_of_them_delivers() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", [*keys_of(0, 15), *keys_of(1, 15)], 1)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.state.topics.held.keys() == {"one"}
    bench.report("one", 16, partition=1)
    bench.wait(WATCH_SECONDS)
    assert bench.state.topics.held == {}
    assert bench.state.partitions.held_of("one") == {0}


def test_where_a_report_shows_other_partitions_than_were_known_the_hold_ends_and_they_are_asked_for() -> None:
    bench = Bench()
    stuck_in_one_of_two(bench)
    bench.fetch("one", keys_of(0, 31)[30:], 31)
    bench.fetch("one", keys_of(1, 1), 32)
    bench.report("one", 32, partition=2)
    assert bench.placement is None
    assert bench.held == set()
    assert bench.state.topics.deferred == {"one": 31}


def test_where_the_cluster_tells_of_other_partitions_the_hold_begins_anew() -> None:
    bench = Bench()
    stuck_in_one_of_two(bench)
    bench.fetch("one", keys_of(0, 31)[30:], 31)
    bench.placement = Placement(DEFAULT_PARTITIONER, 4)
    bench.wait(WATCH_SECONDS)
    assert bench.state.topics.deferred == {"one": 31}
    assert bench.state.partitions.placement_of("one") == bench.placement


def test_a_topic_that_goes_one_record_at_a_time_is_not_held_by_partition() -> None:
    bench = Bench(routes=[Route("one", confirm=Confirm.EACH)])
    bench.placement = TWO
    bench.state.is_crowded = True
    bench.send_each("one", keys_of(0, 2), 1)
    # At first what waits behind the stuck record leaves memory.
    bench.wait(STALL_SECONDS + 2 * WATCH_SECONDS)
    assert bench.state.topics.held.keys() == {"one"}


def test_a_topic_that_is_paused_or_behind_another_breaker_is_not_held_by_partition() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.send_each("two", keys_of(0, 30), 31)
    bench.state.topics.hold("one", HoldReason.PAUSED, bench.now)
    fault = own_fault("CRASHED_DAEMON")
    bench.state.aftermath.holding.open_breaker("two", fault, "of its own", bench.now)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.state.partitions.topics == set()
    assert bench.state.lanes.breakers.open["two"].message == "of its own"


def test_what_the_producer_has_not_taken_is_not_stuck() -> None:
    bench = Bench()
    bench.placement = TWO
    bench.send_each("one", keys_of(0, 30), 1)
    bench.state.ready = bench.records_of("one", keys_of(1, 30), 31)
    bench.wait(STALL_SECONDS + WATCH_SECONDS)
    assert bench.state.partitions.held_of("one") == {0}


def test_what_was_admitted_before_a_partition_was_held_and_sent_after_it_is_stuck_there_too() -> None:
    bench = Bench()
    stuck_in_one_of_two(bench)
    assert bench.state.ledger.rows_free == LIMITS.max_in_flight_rows
    bench.send_each("one", keys_of(0, 40)[30:], 31)
    assert bench.state.ledger.rows_free == LIMITS.max_in_flight_rows - 10
    bench.wait(WATCH_SECONDS)
    assert bench.state.ledger.rows_free == LIMITS.max_in_flight_rows
