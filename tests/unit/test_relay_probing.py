"""Which record tries a topic whose breaker is open."""

from __future__ import annotations

from outboxd.policy.breakers import Breakers
from outboxd.policy.faults import fault_of
from outboxd.policy.key_gate import KeyGate
from outboxd.policy.records import Arm
from outboxd.policy.requests import FetchRequest
from outboxd.policy.topic_holds import HoldReason, TopicHolds
from outboxd.relay.held_records import HeldRecords
from outboxd.relay.ledger import Ledger
from outboxd.relay.probing import Probing
from tests.unit.records import record

TOPIC = "orders"
LATER = 100.0
REQUEST = FetchRequest(position=9, rows_max=10, bytes_max=10_000, catch_up_rows_max=10)


def probing_of(*deferred_ids: int) -> tuple[Probing, Breakers]:
    """Return the probing of a topic whose breaker is open, and of which these records were seen since."""
    breakers, topics, gate = Breakers(), TopicHolds(), KeyGate()
    fault = fault_of(7)
    breakers.trip(TOPIC, fault, fault.meaning, 0.0)
    topics.hold(TOPIC, HoldReason.BREAKER, 0.0)
    topics.split([record(one, topic=TOPIC) for one in deferred_ids], ())
    held, ledger = HeldRecords(gate), Ledger(100, 100_000)
    return Probing(breakers=breakers, topics=topics, gate=gate, held=held, ledger=ledger), breakers


def test_the_lowest_record_that_was_seen_is_the_probe() -> None:
    probing, breakers = probing_of(5, 7)
    assert probing.look(LATER)

    probes = probing.take(REQUEST, [record(5, arm=Arm.CATCH_UP), record(7, arm=Arm.CATCH_UP)], None, LATER)

    assert [probe.id for probe in probes] == [5]
    assert breakers.is_probe(TOPIC, 5)


def test_no_record_is_a_probe_where_a_late_one_below_it_shows_up_in_the_same_snapshot() -> None:
    probing, breakers = probing_of(5)
    assert probing.look(LATER)
    probing.dropped(record(3, arm=Arm.LOOK_BACK))

    assert probing.take(REQUEST, [record(5, arm=Arm.CATCH_UP)], None, LATER) == []
    assert breakers.open[TOPIC].probing_id is None
