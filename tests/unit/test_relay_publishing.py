"""What was admitted and is not with the producer yet, where what went before it comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from outboxd.policy.faults import fault_of, own_fault
from outboxd.policy.messages import DeliveryFault, Report
from outboxd.policy.routes import Route
from outboxd.relay.producer_ends import ProducerEnds
from outboxd.relay.publishing import Publishing
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
