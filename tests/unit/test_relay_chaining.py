"""Records of a key of which many wait go together, and one at a time again where one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.policy.keys.key_gate import WAITING_PER_KEY_MAX
from outboxd.policy.rows.records import FailureHistory, Record
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.publish import chaining
from outboxd.relay.publish.producer_ends import ProducerEnds
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

KEY = ("orders", "k")
TOO_LARGE = DeliveryFault(fault_of(10), "too large")
CHAINS_GO = RelayLimits(chain_rows_min=3, chain_pause_seconds=5.0)


class Bench:
    """What publishes, over a producer that takes and reports as the test says."""

    def __init__(self, limits: RelayLimits = CHAINS_GO, routes: Sequence[Route] = ()) -> None:
        self.now = 100.0
        self.sent: list[int] = []
        self.chains: list[list[int]] = []
        self.room = 1_000
        self.reports: list[Report] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.maybe_twice = 0
        self.together = 0
        self.chain_fault: ChainFailure | None = None
        self.fault: DeliveryFault | None = None
        self.unwritten: set[int] = set()
        self.last_reports: list[Report] = []
        self.ended = 0
        observer = SimpleNamespace(
            wants_rows=False,
            event=lambda name, **fields: self.told.append((name, fields)),
            duplicates_possible=self._duplicates_possible,
            chained=self._chained,
            delivered=lambda *_: None,
            acknowledged_after=lambda *_: None,
        )
        ports = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            dice=SimpleNamespace(random=lambda: 0.5),
            observer=observer,
            publisher=self,
        )
        self.state = State(cast(Ports, cast(Any, ports)), limits, routes, Route(), token=1)
        self.publishing = Publishing(self.state, ProducerEnds())

    def _duplicates_possible(self, rows: int) -> None:
        self.maybe_twice += rows

    def _chained(self, rows: int) -> None:
        self.together += rows

    def admit(self, *records: Record) -> None:
        self.state.lanes.meet({each.topic for each in records})
        self.state.ledger.enter(records)
        self.state.ready += self.state.gate.admit(records)
        self.state.ledger.forget_dropped(self.state.gate)

    def turn(self) -> None:
        self.publishing.publish()
        self.publishing.report(self.now)

    def deliver(self, *record_ids: int) -> None:
        records = self.state.ledger.records
        self.reports += [Report(records[each], None, 0, each) for each in record_ids]

    def settled(self) -> None:
        """What was delivered is written, and leaves memory."""
        self.state.ledger.leave(list(self.state.settling.ids))
        self.state.settling.ids.clear()

    def fail_chains(self, topic: str | None = "orders") -> None:
        self.chain_fault = ChainFailure(topic, TOO_LARGE)

    # The producer.

    def publish(self, records: Sequence[Record], start: int) -> int:
        self.sent += [each.id for each in records[start:]]
        return len(records)

    def publish_chain(self, records: Sequence[Record]) -> int:
        taken = [] if self.chain_fault else [each.id for each in records[: self.room]]
        if taken:
            self.chains.append(taken)
        return len(taken)

    def chain_failure(self) -> ChainFailure | None:
        return self.chain_fault

    def end_chains(self) -> set[int]:
        self.ended += 1
        self.chain_fault = None
        self.reports, self.last_reports = self.reports + self.last_reports, []
        return self.unwritten

    def take_reports(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def committed(self) -> None:
        return None

    def failure(self) -> DeliveryFault | None:
        return self.fault

    def rebuild(self) -> None:
        self.fault = None


def rows(*record_ids: int, key: str | None = "k", topic: str = "orders") -> list[Record]:
    return [record(each, key=key, topic=topic) for each in record_ids]


def test_where_keys_are_few_the_rows_of_each_go_together_and_those_without_a_key_by_themselves() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4), *rows(5, 6, key="few"), *rows(7, 8, 9, key=None))
    bench.turn()
    assert bench.chains == [[1, 2, 3, 4], [5, 6]]
    assert bench.together == 6
    assert bench.sent == [7, 8, 9]
    assert bench.state.lanes.rows_in_flight == 9
    assert not bench.state.has_ready


def test_where_keys_are_many_for_what_waits_each_row_goes_by_itself() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4), *rows(5, key="b"), *rows(6, key="c"))
    bench.turn()
    assert bench.chains == []
    assert bench.sent == [1, 5, 6]


def test_what_is_delivered_and_waits_for_being_settled_does_not_make_keys_few() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3), *rows(4, key="b"), *rows(5, key="c"))
    bench.turn()
    assert bench.chains == []
    bench.deliver(1, 4, 5)
    bench.turn()
    bench.turn()
    assert len(bench.state.ledger) == 5
    assert bench.chains == []
    assert bench.sent == [1, 4, 5, 2]


def test_they_go_together_until_there_is_only_a_quarter_of_that_to_a_key() -> None:
    bench = Bench(RelayLimits(chain_rows_min=8))
    bench.admit(*rows(*range(1, 9)))
    bench.turn()
    bench.deliver(*range(1, 9))
    bench.turn()
    bench.settled()
    bench.admit(*rows(11, 12))
    bench.turn()
    assert bench.chains == [list(range(1, 9)), [11, 12]]
    bench.deliver(11, 12)
    bench.turn()
    bench.settled()
    bench.admit(*rows(21))
    bench.turn()
    assert bench.sent == [21]


def test_what_comes_while_rows_go_together_waits_for_the_last_of_them_a_late_one_too() -> None:
    bench = Bench()
    bench.admit(*rows(2, 3, 5))
    bench.turn()
    bench.admit(*rows(4, 6))
    bench.admit(*rows(1))
    bench.deliver(2, 3)
    bench.turn()
    assert bench.chains == [[2, 3, 5]]
    assert bench.sent == []
    bench.deliver(5)
    bench.turn()
    bench.turn()
    assert bench.chains == [[2, 3, 5], [1, 4, 6]]
    assert bench.state.lanes.rows_in_flight == 3


def test_what_of_them_is_delivered_is_settled_at_once_and_kept_no_longer() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3))
    bench.turn()
    bench.deliver(1, 2)
    bench.turn()
    assert bench.state.settling.ids == [1, 2]
    assert [each.id for each in bench.state.gate.chained.undelivered()] == [3]
    chains = bench.state.gate.keys.queues.chains
    assert [set(chain.records) for chain in chains.by_key.values()] == [{3}]
    assert [each.id for each in bench.state.gate.keys.queues.by_key[KEY]] == [3]


def test_where_one_fails_the_rest_goes_again_one_at_a_time_and_nobody_is_blamed() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4, 5))
    bench.turn()
    bench.deliver(1)
    bench.fail_chains()
    bench.unwritten = {3, 4}
    bench.turn()
    assert bench.ended == 1
    assert bench.state.lanes.rows_in_flight == 0
    assert bench.state.in_doubt == {2, 3, 4, 5}
    assert bench.maybe_twice == 2
    name, fields = bench.told[-1]
    assert name == "chains_ended"
    assert (fields["topic"], fields["error_code"]) == ("orders", "MSG_SIZE_TOO_LARGE")
    assert (fields["rows"], fields["unknown_rows"], fields["pause_seconds"]) == (4, 2, 5.0)
    for record_id in (2, 3, 4, 5):
        bench.turn()
        assert bench.sent[-1] == record_id
        bench.deliver(record_id)
        bench.turn()
    assert bench.sent == [2, 3, 4, 5]
    assert bench.chains == [[1, 2, 3, 4, 5]]


def test_a_report_that_comes_with_the_end_is_taken_before_the_rest_goes_again() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4))
    bench.turn()
    bench.fail_chains()
    bench.last_reports = [Report(each, None, 0, each.id) for each in rows(1, 2)]
    bench.turn()
    bench.turn()
    assert bench.state.settling.ids == [1, 2]
    assert bench.sent == [3]
    assert bench.state.lanes.rows_in_flight == 1


def test_after_a_failure_rows_of_that_topic_go_together_again_only_once_a_pause_is_over() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3))
    bench.turn()
    bench.fail_chains()
    bench.turn()
    bench.admit(*rows(4, 5, 6, key="other"), *rows(7, 8, 9, topic="invoices"))
    bench.turn()
    assert bench.chains == [[1, 2, 3], [7, 8, 9]]
    assert bench.sent == [1, 4]
    bench.now += 5.0
    bench.deliver(4)
    bench.turn()
    bench.admit(*rows(10, 11, key="other"))
    bench.turn()
    assert bench.chains[2:] == [[5, 6, 10, 11]]


def test_where_the_first_one_is_not_taken_it_goes_by_itself_and_the_others_together_behind_it() -> None:
    bench = Bench()
    bench.room = 0
    bench.admit(*rows(1, 2, 3))
    bench.turn()
    assert bench.sent == [1]
    bench.room = 1_000
    bench.deliver(1)
    bench.turn()
    bench.turn()
    assert bench.chains == [[2, 3]]
    assert bench.sent == [1]


def test_what_was_not_taken_of_them_follows_once_the_others_are_delivered() -> None:
    bench = Bench()
    bench.room = 2
    bench.admit(*rows(1, 2, 3, 4, 5))
    bench.turn()
    bench.deliver(1, 2)
    bench.turn()
    bench.turn()
    assert bench.chains == [[1, 2], [3, 4]]
    assert bench.sent == []


def test_one_turn_sends_only_so_many_and_the_rest_goes_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaining, "TURN_ROWS_MAX", 4)
    bench = Bench()
    bench.admit(*rows(1, 2, 3), *rows(4, 5, 6, key="b"), *rows(7, 8, 9, key="c"), *rows(10, key=None))
    bench.turn()
    assert bench.chains == [[1, 2, 3], [4]]
    assert bench.sent == [10]
    assert bench.state.has_ready
    bench.turn()
    assert bench.chains[2:] == [[7, 8, 9]]
    assert bench.state.lanes.rows_in_flight == 8


def _held(bench: Bench) -> None:
    bench.state.lanes.breakers.trip("orders", fault_of(10), "held", bench.now)
    bench.state.lanes.breakers.open["orders"].probing_id = 1
    bench.state.topics.hold("orders", HoldReason.BREAKER, bench.now)


def _failed_before(bench: Bench) -> None:
    bench.state.aftermath.histories.by_id[1] = FailureHistory(1)


@pytest.mark.parametrize("special", [_held, _failed_before])
def test_a_probe_and_what_failed_before_go_by_themselves(special: Callable[[Bench], None]) -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4))
    special(bench)
    bench.publishing.publish()
    assert bench.chains == []
    assert bench.sent == [1]


@pytest.mark.parametrize("confirm", [Confirm.EACH, Confirm.NONE])
def test_on_routes_with_another_confirmation_no_rows_go_together(confirm: Confirm) -> None:
    bench = Bench(routes=[Route("orders", confirm=confirm)])
    bench.state.lanes.meet(["orders"])
    bench.admit(*rows(1, 2, 3, 4))
    bench.publishing.publish()
    assert bench.chains == []
    assert bench.sent == [1]


def test_without_a_least_number_none_go_together() -> None:
    bench = Bench(RelayLimits(chain_rows_min=0))
    bench.admit(*rows(*range(1, 400)))
    bench.turn()
    assert bench.chains == []
    assert bench.state.gate.waiting_per_key_max == WAITING_PER_KEY_MAX


def test_while_rows_go_together_more_of_a_key_wait_in_memory_and_are_dropped_once_one_failed() -> None:
    bench = Bench()
    bench.turn()
    bench.admit(*rows(*range(1, 1_001)))
    bench.turn()
    assert len(bench.chains[0]) == 1_000
    bench.fail_chains()
    bench.turn()
    assert len(bench.state.ledger) == 1 + WAITING_PER_KEY_MAX
    assert bench.state.gate.deferred_keys == {KEY: 2 + WAITING_PER_KEY_MAX}


def test_where_the_shared_producer_fails_only_the_first_of_each_key_goes_to_the_next_one() -> None:
    bench = Bench()
    bench.admit(*rows(1, 2, 3, 4), *rows(5, key=None))
    bench.turn()
    bench.deliver(1)
    bench.turn()
    bench.fault = DeliveryFault(fault_of(45), "out of order")
    bench.publishing.report(bench.now)
    assert [each.id for each in bench.state.ready[bench.state.ready_at :]] == [2, 5]
    assert bench.state.in_doubt == {2, 3, 4, 5}
    assert bench.state.lanes.rows_in_flight == 0
    assert bench.state.gate.waiting_ids() == {3, 4}
