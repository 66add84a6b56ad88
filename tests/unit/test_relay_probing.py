"""Which record tries a topic whose breaker is open."""

from __future__ import annotations

import pytest

from outboxd.policy.exchange.requests import FetchRequest
from outboxd.policy.faults import fault_of
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import NO_HISTORY, Arm
from outboxd.policy.topics.breakers import LOOK_ON_SECONDS, Breakers
from outboxd.policy.topics.topic_holds import HoldReason, TopicHolds
from outboxd.relay.admit import probing as probing_module
from outboxd.relay.admit.probing import TOPICS_READ_MAX, Probing
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.ledger import Ledger
from tests.unit.records import record

TOPIC = "orders"
LATER = 100.0
REQUEST = FetchRequest(position=9, rows_max=10, bytes_max=10_000, probe_rows_max=10)


def probing_of(*deferred_ids: int, parked: int | None = None) -> tuple[Probing, Breakers]:
    """Return the probing of a topic whose breaker is open, and of which these records were seen since; of their key one
    may be parked.
    """
    breakers, topics, gate = Breakers(), TopicHolds(), KeyGate()
    fault = fault_of(7)
    breakers.trip(TOPIC, fault, fault.meaning, 0.0)
    topics.hold(TOPIC, HoldReason.BREAKER, 0.0)
    topics.split([record(one, topic=TOPIC) for one in deferred_ids], ())
    held, ledger = HeldRecords(gate), Ledger(100, 100_000)
    held.park_topic(TOPIC)
    if parked is not None:
        held.add(HeldRecord(parked, TOPIC, (TOPIC, "k"), NO_HISTORY, HeldState.PARKED, "", 0.0, key="k"))
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


def test_what_was_read_for_a_breaker_that_closed_meanwhile_is_no_probe_of_the_next_one() -> None:
    probing, breakers = probing_of(5, 15)
    shown = [record(15, arm=Arm.CATCH_UP)]
    breakers.open[TOPIC].read_from = 15
    assert probing.look(LATER)
    assert [wish.from_id for wish in probing.reads] == [15]

    # A report of before the fault closes the breaker, the next one opens it again: of which keys the first one had met
    # lower records is forgotten.
    breakers.close(TOPIC)
    breakers.trip(TOPIC, fault_of(7), "", LATER)

    assert probing.take(REQUEST, shown, None, LATER) == []
    assert probing.look(LATER + 1)
    assert [wish.from_id for wish in probing.reads] == [5]


def test_a_look_for_a_probe_goes_on_behind_what_it_showed_a_little_later_and_gives_way_to_what_is_parked() -> None:
    probing, breakers = probing_of(5, 6, parked=1)
    breakers.open[TOPIC].wants_untried = True
    shown = [record(5 + place, arm=Arm.CATCH_UP) for place in range(REQUEST.probe_rows_max)]
    assert probing.look(LATER)
    assert [wish.from_id for wish in probing.reads] == [5]

    assert probing.take(REQUEST, shown, None, LATER) == []

    # Not at once: other topics are to be read.
    assert not probing.look(LATER)
    assert probing.look(LATER + LOOK_ON_SECONDS)
    assert [wish.from_id for wish in probing.reads] == [15]
    # And not for ever, while what failed before might get through.
    assert probing.look(LATER + 1)
    assert (probing.ids, probing.reads) == ([1], [])
    breakers.probe_failed(TOPIC, 1, fault_of(7), "", LATER + 1)
    assert probing.look(LATER + 10)
    assert [wish.from_id for wish in probing.reads] == [15]


def test_a_parked_record_waits_until_what_was_seen_late_below_it_was_looked_at_but_no_longer() -> None:
    probing, _ = probing_of(5, parked=14)
    probing._ledger.enter(shown := [record(5 + place, arm=Arm.CATCH_UP) for place in range(REQUEST.probe_rows_max)])
    assert probing.look(LATER)
    assert ([wish.from_id for wish in probing.reads], probing.ids) == ([5], [])

    assert probing.take(REQUEST, shown[:5], Arm.CATCH_UP, LATER) == []
    assert probing.look(LATER + 1)
    assert ([wish.from_id for wish in probing.reads], probing.ids) == ([10], [])

    assert probing.take(REQUEST, shown[5:], Arm.CATCH_UP, LATER + 1) == []
    assert probing.look(LATER + 2)
    assert ([wish.from_id for wish in probing.reads], probing.ids) == ([], [14])


def test_a_look_that_covered_some_ids_only_goes_on_behind_them() -> None:
    probing, breakers = probing_of(5, parked=1)
    breakers.open[TOPIC].wants_untried = True
    request = REQUEST._replace(position=1_000, reach_ids=10)
    assert probing.look(LATER)

    assert probing.take(request, [], None, LATER) == []

    assert probing.look(LATER + LOOK_ON_SECONDS)
    assert [wish.from_id for wish in probing.reads] == [16]
    assert not breakers.open[TOPIC].nothing_untried


def test_ids_below_zero_are_as_any_others_and_a_look_goes_on_behind_the_last_of_them() -> None:
    probing, breakers = probing_of(-10)
    assert probing.look(LATER)
    probing._ledger.enter(shown := [record(place - 10, arm=Arm.CATCH_UP) for place in range(REQUEST.probe_rows_max)])

    assert probing.take(REQUEST, shown, Arm.CATCH_UP, LATER) == []

    assert probing.look(LATER + 1)
    assert [wish.from_id for wish in probing.reads] == [0]
    probing.take(REQUEST, [], Arm.LOOK_BACK, LATER + 1)
    probing.dropped(record(-3, arm=Arm.LOOK_BACK))
    assert breakers.open[TOPIC].read_from is None


def test_a_parked_record_below_zero_waits_for_what_was_seen_late_below_it_too() -> None:
    probing, _ = probing_of(-5, parked=-3)

    assert probing.look(LATER)

    assert ([wish.from_id for wish in probing.reads], probing.ids) == ([-5], [])


def test_few_topics_are_read_for_a_probe_at_once_and_the_others_a_little_later() -> None:
    probing, breakers = probing_of(5)
    fault = fault_of(7)
    topics = [TOPIC, *(f"topic-{number}" for number in range(TOPICS_READ_MAX + 1))]
    for topic in topics[1:]:
        breakers.trip(topic, fault, fault.meaning, 0.0)
        probing._topics.hold(topic, HoldReason.BREAKER, 0.0)
        probing._topics.split([record(5, topic=topic)], ())
    assert probing.look(LATER)
    read = [wish.topic for wish in probing.reads]
    assert read == topics[:TOPICS_READ_MAX]
    for topic in read:
        breakers.probing(topic, 5)

    assert not probing.look(LATER)
    assert probing.look(LATER + LOOK_ON_SECONDS)
    assert [wish.topic for wish in probing.reads] == topics[TOPICS_READ_MAX:]


def test_a_topic_of_which_all_that_waited_went_as_probes_has_nothing_to_wait_for_and_its_breaker_may_close() -> None:
    probing, _ = probing_of(5)
    assert probing.look(LATER)
    assert probing.take(REQUEST, [], None, LATER) == []
    assert probing._topics.deferred == {}
    probing.look(LATER + 10)
    assert probing.idle_topics == [TOPIC]


def test_what_a_read_for_a_probe_shows_as_new_is_waited_for_though_nothing_older_is_left() -> None:
    probing, _ = probing_of(5)
    assert probing.look(LATER)
    probing.dropped(record(10))
    assert probing.take(REQUEST, [], None, LATER) == []
    assert probing._topics.deferred == {TOPIC: 5}


def test_a_look_passes_over_any_number_of_keys_that_may_not_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing_module, "KEYS_READ_MAX", 3)
    probing, breakers = probing_of(101)
    # Each key waits for a dead letter of it but the last one.
    shown = [record(101 + place, key=f"k{place}", arm=Arm.CATCH_UP) for place in range(21)]
    for place in range(20):
        gate_key = (TOPIC, f"k{place}")
        probing._held.add(HeldRecord(1 + place, TOPIC, gate_key, NO_HISTORY, HeldState.DEAD, "", 0.0, key=gate_key[1]))

    now = LATER
    for _ in range(5):
        assert probing.look(now)
        from_id = probing.reads[0].from_id
        probes = probing.take(REQUEST, [each for each in shown if each.id >= from_id][:10], None, now)
        now += LOOK_ON_SECONDS
        if probes:
            break

    assert [probe.id for probe in probes] == [121]
    assert breakers.is_probe(TOPIC, 121)
