"""What the lease is given up with when the relay stops: whether anything is in doubt, and nothing left to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.kafka.transactional.no_chains import NoChains
from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.messages import (
    DeliveryFault,
    Event,
    LeaseGranted,
    LeaseLost,
    Reconfigured,
    Report,
    Settled,
    SettleFailed,
    StopRequested,
    TopicsChanged,
)
from outboxd.policy.exchange.reads import Fetched, Loaded, Swept
from outboxd.policy.exchange.requests import FetchRequest, Settlement
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import Arm, Record
from outboxd.policy.topics.partitioners import Placement
from outboxd.relay.ending import RelayEnd
from outboxd.relay.ownership import PROBED_SECONDS, RECONFIGURED, RENEWAL_SECONDS_MAX, REPLAYS_CHANGED
from outboxd.relay.relay import TRIED_SECONDS, Ports, Relay, RelayLimits
from outboxd.relay.report.thens import GOES_ON, GOES_ON_BY_ANOTHER, LEFT
from tests.unit.records import record

FATAL = DeliveryFault(fault_of(45), "fatal")
NOT_ENOUGH_REPLICAS_AFTER_APPEND = DeliveryFault(fault_of(20), "it is in the log of the leader")

TOO_LARGE = DeliveryFault(fault_of(10), "too large")


class Bench(NoChains):
    """A relay between a database, which answers at once, and a producer that reports when the test says so."""

    def __init__(self, *rows: Record) -> None:
        self.pending = {row.id: row for row in rows}
        self.mail: list[Event] = [LeaseGranted(1)]
        self.calls: list[str] = []
        self.given_up: dict[str, bool] = {}
        self.with_producer: list[Record] = []
        self.reports: list[Report] = []
        self.fault: DeliveryFault | None = None
        self.is_full = False
        self.refused: set[int] = set()
        self.missing: set[str] = set()
        self.now = 100.0
        self.trusted_until = float("inf")
        observer = SimpleNamespace(wants_rows=False, **dict.fromkeys(OBSERVED, lambda *_, **__: None))
        clock = SimpleNamespace(monotonic=lambda: self.now)
        dice = SimpleNamespace(random=lambda: 0.5)
        lease = SimpleNamespace(trusted_until=lambda: self.trusted_until, give_up=self.give_up)
        mailbox = SimpleNamespace(take=self.take, wait=lambda _: None)
        ports = Ports(*(cast(Any, port) for port in (self, self, lease, mailbox, clock, dice, observer)))
        self.relay = Relay(ports, RelayLimits())

    # What happens.

    def turns(self, count: int = 4, *events: Event) -> None:
        """Let the relay have these, and make turns."""
        self.mail += events
        for _ in range(count):
            if self.relay.end is None:
                self.now += 0.05
                self.relay.turn()

    def deliver(self) -> None:
        """All that the producer has is acknowledged."""
        self.reports += [Report(row, None, 0, row.id) for row in self.with_producer]
        self.with_producer = []

    def fail(self) -> None:
        """The producer comes to its end, and reports nothing of what it has."""
        self.fault = FATAL

    def take(self) -> list[Event]:
        mail, self.mail = self.mail, []
        return mail

    def give_up(self, _token: int, **given_up_as: bool) -> None:
        self.calls.append("give up")
        self.given_up = given_up_as

    # The database.

    def begin_load(self) -> None:
        self.mail.append(Loaded((), (), 0))

    def begin_fetch(self, request: FetchRequest, *_: object) -> None:
        chosen = [self.pending[row_id]._replace(arm=Arm.CHOSEN) for row_id in request.chosen_ids]
        forward = [row for row in self.pending.values() if request.forward and row.id > request.position]
        self.mail.append(Fetched(chosen + forward, 0))

    def hurry_fetch(self) -> None: ...

    def begin_sweep(self, _: object) -> None:
        self.mail.append(Swept((), None))

    def begin_settle(self, settlement: Settlement, _token: int) -> None:
        if self.refused.intersection(settlement.delivered_ids):
            self.mail.append(SettleFailed(settlement, "frozen", refused=True))
            return
        for row_id in settlement.delivered_ids:
            del self.pending[row_id]
        self.mail.append(Settled(settlement, settlement.rows))

    # The producer.

    def publish(self, records: Sequence[Record], start: int) -> int:
        if self.is_full:
            return start
        self.with_producer += records[start:]
        return len(records)

    def publish_alone(self, suspect: Record) -> bool:
        self.with_producer.append(suspect)
        return True

    def poll(self, _: float) -> None: ...

    flush = poll

    def take_reports(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def committed(self) -> None: ...

    def connection_trouble(self) -> None: ...

    def failure(self) -> DeliveryFault | None:
        return self.fault

    def rebuild(self) -> None:
        self.calls.append("rebuild")
        self.fault, self.with_producer, self.reports = None, [], []

    def purge(self) -> None:
        self.calls.append("purge")

    def placement(self, _topic: str) -> None: ...

    def is_missing(self, topic: str) -> bool:
        return topic in self.missing


OBSERVED = (
    "event", "delivered", "acknowledged_after", "failed", "retried", "died", "chained", "duplicates_possible", "phase",
    "database_answered", "database_not_asked",
)  # fmt: skip
RENEWS = Reconfigured(RelayLimits(), (), Route(), renews=True)


def stopped_as_drained(bench: Bench) -> bool:
    """Whether the relay, which has come to its end, said that nothing is in doubt."""
    assert bench.relay.end is not None
    assert bench.relay.end.reason == "stopped"
    return bench.given_up["drained"]


def test_a_stop_with_nothing_unsettled_is_drained() -> None:
    bench = Bench(record(1), record(2, key="other"))
    bench.turns()
    bench.deliver()
    bench.turns(4, StopRequested())
    assert stopped_as_drained(bench)


def test_where_the_producer_fails_while_it_drains_what_it_had_is_in_doubt() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.turns(2, StopRequested())
    assert bench.relay.end is None, "the record is on its way"
    bench.fail()
    bench.turns()
    assert not stopped_as_drained(bench)


def test_what_a_failed_producer_had_is_in_doubt_where_a_stop_comes_before_it_went_again() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.fail()
    bench.turns(1)
    assert bench.with_producer == []
    bench.turns(4, StopRequested())
    assert not stopped_as_drained(bench)


def test_what_a_failed_producer_had_is_in_doubt_no_more_once_it_went_again_and_is_settled() -> None:
    bench = Bench(record(1), record(2, key="other"))
    bench.turns()
    bench.fail()
    bench.turns()
    bench.deliver()
    bench.turns()
    bench.turns(4, StopRequested())
    assert stopped_as_drained(bench)


@pytest.mark.parametrize("event", [RENEWS, TopicsChanged("another cluster answers")], ids=["reload", "another cluster"])
def test_what_a_renewal_did_not_wait_for_is_in_doubt(event: Event) -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.turns(2, event)
    bench.now += RENEWAL_SECONDS_MAX
    bench.turns(1)
    assert bench.calls.count("rebuild") == 1
    bench.turns(4, StopRequested())
    assert not stopped_as_drained(bench)


def test_a_renewal_does_not_wait_for_a_row_that_postgresql_refuses_to_settle_again_and_again() -> None:
    bench = Bench(record(1), record(2, key="other"))
    bench.refused = {1}
    bench.turns()
    bench.deliver()
    bench.turns()
    assert list(bench.pending) == [1]
    bench.turns(4, RENEWS)
    assert "rebuild" not in bench.calls, "it may be settled in a moment"
    bench.turns(round(RENEWAL_SECONDS_MAX / 2 / 0.05))
    assert bench.calls.count("rebuild") == 1
    bench.turns()
    assert [each.id for each in bench.with_producer] == [1], "it goes again"


def refusing(rows: int) -> Bench:
    """A relay that only has rows left which PostgreSQL refuses to settle again and again."""
    bench = Bench(*(record(number, key=str(number)) for number in range(1, rows + 1)))
    bench.refused = set(bench.pending)
    bench.turns()
    bench.deliver()
    bench.turns(1_000)
    assert bench.relay.state.settling.refusals.are_stuck
    return bench


@pytest.mark.parametrize("rows", [1, 100])
def test_a_stop_waits_a_moment_for_what_postgresql_refuses_to_settle_again_and_again(rows: int) -> None:
    bench = refusing(rows)
    stopped_at = bench.now
    bench.turns(1_000, StopRequested())
    assert bench.now - stopped_at == pytest.approx(TRIED_SECONDS, abs=0.2)
    assert bench.relay.end == RelayEnd("unsettled")
    assert not bench.given_up["drained"]


def test_what_can_be_settled_again_by_a_stop_is_settled_before_the_end() -> None:
    bench = refusing(30)
    bench.refused = set()
    bench.turns(1_000, StopRequested())
    assert not bench.pending
    assert stopped_as_drained(bench)


def test_a_stop_waits_for_what_was_refused_only_a_few_times() -> None:
    bench = Bench(record(1))
    bench.refused = {1}
    bench.turns()
    bench.turns(1, StopRequested())
    bench.deliver()
    bench.turns(round(TRIED_SECONDS / 0.05))
    assert bench.relay.end is None
    bench.turns(1_000)
    assert bench.relay.end == RelayEnd("unsettled")


UNKNOWN_TOPIC = DeliveryFault(fault_of(3), "no such topic")


def probing(*others: Record) -> Bench:
    """A relay whose producer has a record that tries a missing topic, and what else is there."""
    bench = Bench(record(1, topic="missing"), *others)
    bench.turns()
    bench.reports = [Report(row, UNKNOWN_TOPIC, 0, None, True) for row in bench.with_producer if row.id == 1]
    bench.with_producer = [row for row in bench.with_producer if row.id != 1]
    bench.turns(20)
    assert "missing" in bench.relay.state.lanes.breakers.open
    assert 1 in {row.id for row in bench.with_producer}
    return bench


def test_a_stop_waits_a_moment_only_for_what_tries_a_topic_on_hold() -> None:
    bench = probing()
    stopped_at = bench.now
    bench.turns(1_000, StopRequested())
    assert bench.now - stopped_at == pytest.approx(TRIED_SECONDS, abs=0.2)
    assert bench.relay.end == RelayEnd("probing")
    assert bench.calls[-2:] == ["purge", "give up"]
    assert not bench.given_up["drained"]


def test_a_stop_waits_for_another_topics_records_beside_what_tries_a_topic_on_hold() -> None:
    bench = probing(record(2))
    bench.turns(round(2 * TRIED_SECONDS / 0.05), StopRequested())
    assert "give up" not in bench.calls
    bench.reports = [Report(row, None, 0, row.id) for row in bench.with_producer if row.id == 2]
    bench.turns()
    assert bench.relay.end == RelayEnd("probing")
    assert list(bench.pending) == [1]


def test_a_stop_and_a_renewal_wait_a_moment_only_for_rows_of_a_topic_that_the_cluster_does_not_have() -> None:
    bench = Bench(record(1, topic="missing"))
    bench.missing.add("missing")
    bench.turns()
    assert bench.relay.state.lanes.breakers.open == {}
    bench.turns(round(PROBED_SECONDS / 0.05) - 2, RENEWS)
    assert "rebuild" not in bench.calls
    bench.turns()
    assert bench.calls.count("rebuild") == 1
    bench.turns()
    stopped_at = bench.now
    bench.turns(1_000, StopRequested())
    assert bench.now - stopped_at == pytest.approx(TRIED_SECONDS, abs=0.2)
    assert bench.relay.end == RelayEnd("probing")
    assert not bench.given_up["drained"]


def test_a_renewal_waits_a_moment_only_for_what_tries_a_topic_on_hold() -> None:
    bench = probing()
    bench.turns(round(PROBED_SECONDS / 0.05) - 2, RENEWS)
    assert "rebuild" not in bench.calls
    bench.turns()
    assert bench.calls.count("rebuild") == 1


def test_what_a_renewal_did_not_wait_for_is_in_doubt_no_more_once_it_went_again_and_is_settled() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.turns(2, RENEWS)
    bench.now += RENEWAL_SECONDS_MAX
    bench.turns(8)
    bench.deliver()
    bench.turns()
    bench.turns(4, StopRequested())
    assert stopped_as_drained(bench)


def test_what_failed_and_was_parked_before_a_renewal_is_in_doubt_after_it() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.reports = [Report(row, NOT_ENOUGH_REPLICAS_AFTER_APPEND, 0, None, True) for row in bench.with_producer]
    bench.with_producer = []
    bench.turns(2)
    assert 1 in bench.relay.state.held
    bench.turns(1, RENEWS)
    assert 1 not in bench.relay.state.held
    bench.turns(4, StopRequested())
    assert not stopped_as_drained(bench)


def test_what_failed_and_was_read_again_but_not_sent_before_a_stop_is_in_doubt() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.reports = [Report(row, NOT_ENOUGH_REPLICAS_AFTER_APPEND, 0, None, True) for row in bench.with_producer]
    bench.with_producer, bench.is_full = [], True
    bench.turns(10)
    assert 1 not in bench.relay.state.held
    bench.relay.state.aftermath.holding.close_breaker("orders", bench.now)
    bench.turns(4, StopRequested())
    assert not stopped_as_drained(bench)


def test_what_was_refused_with_its_batch_and_did_not_go_again_is_in_doubt() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.turns(1, StopRequested())
    bench.reports = [Report(row, TOO_LARGE, 0, None) for row in bench.with_producer]
    bench.turns(1)
    assert not stopped_as_drained(bench)


def test_a_settlement_that_is_answered_after_a_renewal_tells_of_what_was_in_doubt() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.deliver()
    settled: list[Event] = []

    def settle_late(settlement: Settlement, _token: int) -> None:
        settled.append(Settled(settlement, settlement.rows))

    bench.begin_settle = settle_late  # type: ignore[method-assign]
    bench.turns(2, RENEWS)
    bench.now += RENEWAL_SECONDS_MAX
    bench.turns(1)
    assert bench.relay.state.in_doubt == {1}
    bench.turns(1, *settled)
    bench.pending.clear()
    bench.turns(4, StopRequested())
    assert stopped_as_drained(bench)


@pytest.mark.parametrize("reason", ["shutdown_timeout", "forced", "blocked"])
def test_what_the_producer_still_has_is_dropped_before_the_lease_is_given_up(reason: str) -> None:
    bench = Bench(record(1))
    bench.turns()
    assert [row.id for row in bench.with_producer] == [1]
    match reason:
        case "shutdown_timeout":
            bench.turns(1, StopRequested())
            bench.now += bench.relay.state.limits.shutdown_timeout_seconds
            bench.turns(1)
        case "forced":
            bench.turns(1, StopRequested(), StopRequested())
        case _:
            bench.relay._finish(reason)
    assert bench.relay.end is not None
    assert bench.relay.end.reason == reason
    assert bench.calls == ["purge", "give up"]


def test_fire_and_forget_records_that_are_on_their_way_are_not_dropped_where_all_is_settled() -> None:
    bench = Bench()
    bench.turns()
    bench.relay._finish("empty")
    assert bench.calls == ["give up"]


def test_what_is_told_to_stop_three_times_while_it_does_not_turn_ends_once() -> None:
    bench = Bench(record(1))
    bench.turns()
    bench.turns(1, StopRequested(), StopRequested(), StopRequested())
    assert bench.relay.end == RelayEnd("forced")
    assert bench.calls == ["purge", "give up"]


def test_a_renewal_says_whether_the_configuration_or_an_operators_replay_asked_for_it() -> None:
    bench = Bench()
    told: list[object] = []

    def event(name: str, **fields: object) -> None:
        if name == "producer_renewed":
            told.append(fields["reason"])

    cast(Any, bench.relay.state.ports.observer).event = event
    bench.turns()
    bench.relay.state.wants_reload = True
    bench.turns()
    bench.turns(4, RENEWS)
    assert told == [REPLAYS_CHANGED, RECONFIGURED]


def bench_with_holds() -> tuple[Bench, list[tuple[str, dict[str, object]]]]:
    """A relay that has just put the topic `closed` on hold, and a partition of `stuck`; and its events as they come."""
    bench = Bench()
    told: list[tuple[str, dict[str, object]]] = []
    cast(Any, bench.relay.state.ports.observer).event = lambda name, **fields: told.append((name, fields))
    bench.turns()
    state = bench.relay.state
    state.aftermath.holding.open_breaker("closed", fault_of(29), "no right to write", bench.now)
    state.stuck.hold("stuck", (Placement("murmur2_random", 3), {2}), [], bench.now)
    return bench, told


def test_a_renewal_tells_that_what_waited_under_the_producer_before_goes_on() -> None:
    bench, told = bench_with_holds()
    opened_at = bench.now
    bench.turns(4, RENEWS)
    waits = [each for each in told if each[0] in ("breaker_closed", "partitions_released", "producer_renewed")]
    assert [name for name, _ in waits] == ["breaker_closed", "partitions_released", "producer_renewed"]
    assert waits[0][1]["topic"] == "closed"
    assert waits[0][1]["open_seconds"] == round(bench.now - 3 * 0.05 - opened_at, 3)
    assert waits[0][1]["then"] == GOES_ON
    assert waits[1][1] == {"topic": "stuck", "partitions": "2", "then": GOES_ON}
    assert bench.relay.state.lanes.breakers.open == {}


@pytest.mark.parametrize(
    ("events", "last"),
    [
        ([LeaseLost("the connection is gone")], "lease_lost"),
        ([StopRequested()], "ended"),
        ([StopRequested(), StopRequested()], "ended"),
    ],
    ids=["lease lost", "stop", "forced stop"],
)
def test_where_an_ownership_ends_whoever_was_told_that_a_topic_waits_hears_that_it_is_left_to_the_next_owner(
    events: list[Event], last: str
) -> None:
    bench, told = bench_with_holds()
    opened_at = bench.now
    bench.turns(1, *events)
    ends = [each for each in told if each[0] in ("breaker_closed", "partitions_released", last)]
    assert [name for name, _ in ends] == ["breaker_closed", "partitions_released", last]
    assert ends[0][1] == {
        "topic": "closed",
        "error_code": "TOPIC_AUTHORIZATION_FAILED",
        "open_seconds": round(bench.now - opened_at, 3),
        "then": LEFT,
    }
    assert ends[1][1]["partitions"] == "2"
    assert ends[1][1]["then"] == LEFT


@pytest.mark.parametrize(
    ("events", "then", "last"),
    [
        ([LeaseLost("the connection is gone")], LEFT, "lease_lost"),
        ([StopRequested(), StopRequested()], LEFT, "ended"),
        ([RENEWS], GOES_ON_BY_ANOTHER, "producer_renewed"),
    ],
    ids=["lease lost", "stop", "another producer"],
)
def test_whoever_was_told_that_a_topic_is_stuck_hears_what_becomes_of_that(
    events: list[Event], then: str, last: str
) -> None:
    bench = Bench(record(1))
    told: list[tuple[str, dict[str, object]]] = []
    cast(Any, bench.relay.state.ports.observer).event = lambda name, **fields: told.append((name, fields))
    while not any(name == "in_flight_stalled" for name, _ in told):
        bench.turns()
    bench.turns(1, *events)
    while not any(name == last for name, _ in told):
        bench.turns()
    over = [each for each in told if each[0] in ("in_flight_moving", last)]
    assert [name for name, _ in over] == ["in_flight_moving", last]
    assert (over[0][1]["topic"], over[0][1]["then"]) == ("orders", then)


@pytest.mark.parametrize("is_delivered", [False, True])
def test_a_topic_that_was_let_go_after_a_storm_and_not_tried_yet_is_tried_with_care_by_the_next_producer_too(
    is_delivered: bool,
) -> None:
    bench = Bench()
    bench.turns()
    code = fault_of(10).code
    bench.relay.state.aftermath.holding.try_all_again({"stormed": code}, bench.now)
    if is_delivered:
        bench.relay.state.lanes.storms.delivered("stormed", bench.now)
    bench.turns(4, RENEWS)
    lanes = bench.relay.state.lanes
    assert {topic: breaker.fault.code for topic, breaker in lanes.breakers.open.items()} == lanes.storms.untried()
    assert lanes.storms.untried() == ({} if is_delivered else {"stormed": code})


def test_a_topic_that_waited_behind_a_breaker_does_not_make_a_stop_a_clean_one() -> None:
    bench = Bench()
    bench.turns()
    bench.relay.state.aftermath.holding.open_breaker("closed", fault_of(29), "no right to write", bench.now)
    bench.turns(4, StopRequested())
    assert not stopped_as_drained(bench)


def test_where_a_producer_with_transactions_ends_the_topics_that_waited_go_on_with_the_next() -> None:
    bench = Bench()
    told: list[str] = []
    cast(Any, bench.relay.state.ports.observer).event = lambda name, **_: told.append(name)
    bench.turns()
    bench.relay.state.aftermath.holding.open_breaker("closed", fault_of(29), "no right to write", bench.now)
    bench.relay.ownership.resolve(FATAL)
    assert told[-2:] == ["breaker_closed", "producer_rebuilt"]


def test_of_what_an_owner_that_lost_the_lease_had_in_memory_only_what_was_sent_may_be_sent_twice() -> None:
    bench = Bench(record(1), record(2), record(3), record(4, key="other"), record(5, key="other"))
    told: dict[str, object] = {}
    counted: list[int] = []
    observer = cast(Any, bench.relay.state.ports.observer)
    observer.event = lambda name, **fields: told.update({name: fields})
    observer.duplicates_possible = counted.append
    bench.turns()
    assert [row.id for row in bench.with_producer] == [1, 4], "one of each key"
    bench.turns(1, LeaseLost("the connection is gone"))
    assert told["lease_lost"] == {"reason": "the connection is gone", "unsettled_rows": 5}
    assert counted == [2]


def test_what_was_delivered_and_not_settled_before_the_lease_was_lost_may_be_sent_twice() -> None:
    bench = Bench(record(1), record(2), record(3))
    counted: list[int] = []
    cast(Any, bench.relay.state.ports.observer).duplicates_possible = counted.append
    bench.begin_settle = lambda *_: None  # type: ignore[method-assign]
    bench.turns()
    bench.deliver()
    bench.turns()
    assert [row.id for row in bench.with_producer] == [2]
    bench.turns(1, LeaseLost("the connection is gone"))
    assert counted == [2]
