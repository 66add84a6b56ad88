"""What was admitted and is not with the producer yet, where what went before it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.rows.records import Record
from outboxd.relay.publish.producer_ends import ProducerEnds
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.state import Ports, RelayLimits, State
from tests.unit.records import record

KEY = ("orders", "k")


def test_records_do_not_overtake_those_of_their_key_that_a_transaction_gave_back_for_a_failed_one_without_a_key() -> (
    None
):
    keyless, *given_back = [record(4, key=None), record(1), record(2)]
    failed = DeliveryFault(fault_of(7), "timed out")
    back = DeliveryFault(own_fault("SENT_BACK"), "another row failed in the same transaction")
    reports = [Report(keyless, failed, None, None, True)]
    reports += [Report(one, back, None, None, True) for one in given_back]
    observer = SimpleNamespace(
        wants_rows=False, failed=lambda *_: None, event=lambda *_, **__: None, retried=lambda *_: None
    )
    ports = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: 0.0),
        dice=SimpleNamespace(random=lambda: 0.5),
        observer=observer,
        publisher=SimpleNamespace(take_reports=lambda: reports, committed=lambda: None, failure=lambda: None),
    )
    state = State(cast(Ports, cast(Any, ports)), RelayLimits(), (), Route(), token=1, pipelined=True)
    publishing = Publishing(state, ProducerEnds())
    state.lanes.meet(["orders"])
    later = record(3)
    state.ledger.enter([*given_back, later, keyless])
    state.lanes.published([keyless, *given_back])
    state.ready = [later]
    # Of the key, more than one answer shows is to be read again.
    state.gate.keys.defer(KEY, record(9))
    state.gate.keys.free(KEY)
    state.ledger.forget_dropped(state.gate)

    publishing.report(0.0)
    publishing.take_back(0.0)

    assert [one for one in state.ready[state.ready_at :] if one.key is not None] == []
    assert state.gate.deferred_keys == {KEY: 1}
    assert not {1, 2, 3} & set(state.ledger.records)


class PreparingPublisher:
    """Takes a record only where it was the first that was offered the last time, as one that notes it down before."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._prepared: int | None = None

    def publish(self, records: Sequence[Record], start: int) -> int:
        first_id = records[start].id
        if first_id != self._prepared:
            self._prepared = first_id
            return start
        self.taken.append(first_id)
        return start + 1


def test_fire_and_forget_records_that_were_offered_and_not_taken_are_offered_again_before_those_that_had_no_room() -> (
    None
):
    publisher = PreparingPublisher()
    ports = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0), dice=None, observer=None, publisher=publisher)
    # One record of such topics may be in flight at a time.
    limits = RelayLimits(max_in_flight_rows=10)
    state = State(cast(Ports, cast(Any, ports)), limits, (), Route(confirm=Confirm.NONE), token=1)
    publishing = Publishing(state, ProducerEnds())
    state.lanes.meet(["lossy"])
    state.ready = [record(record_id, topic="lossy", key=None) for record_id in (1, 2, 3)]
    state.ledger.enter(state.ready)

    publishing.publish()
    state.ready.append(record(4, topic="lossy", key=None))
    publishing.publish()
    assert publisher.taken == [1]

    state.lanes.count_in_flight(state.lanes["lossy"], -1)
    for _ in range(2):
        publishing.publish()
    assert publisher.taken == [1, 2]
