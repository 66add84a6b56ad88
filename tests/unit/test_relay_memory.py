"""What the relay keeps in memory: records, failed ones that wait, and outcomes that are to be written."""

from __future__ import annotations

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason, Retry
from outboxd.policy.faults import fault_of
from outboxd.policy.fetch.limits import REPLAYS_MAX
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import NO_HISTORY, FailureHistory
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.memory.settling import Settling
from tests.unit.records import record

FAULT = fault_of(7)


def held(
    record_id: int,
    state: HeldState,
    *,
    topic: str = "t",
    key: str = "k",
    dead_letter_id: int | None = None,
    due_at: float = 0,
) -> HeldRecord:
    history = FailureHistory(1, dead_letter_id) if dead_letter_id else NO_HISTORY
    return HeldRecord(record_id, topic, (topic, key), history, state, "why", 0.0, due_at)


def chosen_ids(records: HeldRecords, rows_max: int = 10, closed: tuple[str, ...] = ()) -> list[int]:
    return [one.id for one in records.choose(rows_max, closed, ())]


def test_the_ledger_knows_what_left_while_a_snapshot_is_read() -> None:
    ledger = Ledger(10, 1_000)
    ledger.enter([record(1), record(2)])
    ledger.fetch_begins()
    ledger.leave([1])

    assert ledger.unknown([record(1), record(2), record(3)]) == [record(3)]
    ledger.fetch_ended()
    assert ledger.unknown([record(1), record(3)]) == [record(1), record(3)]


def test_the_ledger_counts_rows_and_bytes() -> None:
    ledger = Ledger(3, 250)
    ledger.enter([record(1), record(2, size_bytes=200)])

    assert (ledger.rows_free, ledger.bytes_free) == (1, 0)
    ledger.leave([2, 2, 99])
    assert (ledger.rows_free, ledger.bytes_free) == (2, 150)
    assert ledger.oldest() == record(1)


def test_of_each_key_only_the_first_failed_record_is_asked_for() -> None:
    records = HeldRecords(KeyGate())
    for record_id in (5, 3):
        records.add(held(record_id, HeldState.WANTED))
    records.add(held(4, HeldState.WANTED, key="other"))

    assert sorted(chosen_ids(records)) == [3, 4]


def test_records_of_closed_topics_are_not_asked_for() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(1, HeldState.WANTED))

    assert chosen_ids(records, closed=("t",)) == []
    assert chosen_ids(records) == [1]


def test_a_record_waits_for_what_its_topic_has_yet_to_read_again_before_it() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(7, HeldState.WANTED))
    records.add(held(3, HeldState.WANTED, key="other"))

    assert [one.id for one in records.choose(10, (), (), lambda held: held.id >= 5)] == [3]
    assert sorted(chosen_ids(records)) == [3, 7]


def test_a_retry_that_is_overdue_by_the_relays_own_clock_is_wanted_though_the_database_lists_none() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(1, HeldState.SCHEDULED, due_at=5.0))
    records.add(held(2, HeldState.SCHEDULED, key="other", due_at=50.0))

    records.want_overdue(4.0)
    assert chosen_ids(records) == []
    records.want_overdue(6.0)
    assert chosen_ids(records) == [1]


def test_what_a_fetch_did_not_answer_is_wanted_again() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(1, HeldState.WANTED))
    records.asked(records.choose(10, (), ()))
    assert chosen_ids(records) == []

    records.not_answered([1])

    assert chosen_ids(records) == [1]


def test_behind_a_breaker_records_wait_as_its_probes_and_are_wanted_when_it_closes() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(1, HeldState.WANTED))
    records.park_topic("t")
    records.add(held(2, HeldState.WANTED, key="other"))

    assert chosen_ids(records) == []
    probes = [records.probe_candidate("t"), records.probe_candidate("t"), records.probe_candidate("t")]
    assert [probe.id if probe else None for probe in probes] == [1, 2, 1], "successive probes take other keys"
    records.want_parked("t")
    assert sorted(chosen_ids(records)) == [1, 2]


def test_a_probe_is_the_first_of_its_key() -> None:
    gate = KeyGate()
    records = HeldRecords(gate)
    letter = held(1, HeldState.DEAD)
    records.add(letter)
    records.park_topic("t")
    records.add(held(2, HeldState.PARKED))

    assert records.probe_candidate("t") is None
    assert records.has_parked("t")
    records.letters.remove(letter)
    gate.release(("t", "k"), 1)
    probe = records.probe_candidate("t")
    assert probe is not None
    assert probe.id == 2


def test_a_replay_that_failed_is_wanted_when_it_is_due() -> None:
    records = HeldRecords(KeyGate())
    records.add(held(1, HeldState.SCHEDULED, dead_letter_id=7, due_at=5.0))

    records.want_due(4.9)
    assert chosen_ids(records) == []
    assert records.next_due_at == 5.0
    records.want_due(5.0)
    assert chosen_ids(records) == [1]
    assert records.next_due_at is None


def test_replays_are_taken_up_to_a_bound_that_dead_letters_which_hold_their_keys_do_not_count_for() -> None:
    records = HeldRecords(KeyGate())
    for record_id in range(REPLAYS_MAX):
        records.add(held(record_id, HeldState.DEAD, key=str(record_id), dead_letter_id=record_id + 1))
    assert (len(records.letters), records.takes_replays) == (REPLAYS_MAX, True)
    for record_id in range(REPLAYS_MAX):
        records.add(held(record_id, HeldState.WANTED, key=str(record_id), dead_letter_id=record_id + 1))
    assert (len(records.by_id), records.takes_replays) == (REPLAYS_MAX, False)
    records.remove(0)
    assert (len(records.by_id), records.takes_replays) == (REPLAYS_MAX - 1, True)


def test_a_settlement_takes_what_waits_and_one_that_failed_is_given_again_whole_before_any_other() -> None:
    settling = Settling(2)
    settling.ids += [1, 2, 3]
    settling.partitions += [0, 0, 1]
    settling.offsets += [10, 11, 12]
    retry = Retry(FAULT, "why", 1, 0.5)
    settling.retry(4, retry)

    first = settling.take()
    assert first is not None
    assert (first.delivered_ids, first.delivered_offsets, first.retries) == ([1, 2], [10, 11], [(4, retry)])
    assert settling.take() is None, "one at a time"
    settling.failed(first)
    assert settling.take() is first
    settling.done()
    second = settling.take()
    assert second is not None
    assert (second.delivered_ids, second.retries) == ([3], [])
    settling.done()
    assert settling.is_empty


def test_outcomes_that_are_not_written_yet_are_known() -> None:
    settling = Settling(10)
    death = DeadLetter(DeathReason.FATAL, FAULT, "why", 1, False)
    settling.ids.append(1)
    settling.partitions.append(0)
    settling.offsets.append(0)
    settling.take()
    settling.retry(2, Retry(FAULT, "why", 1, 0.5))
    settling.dead(3, death)
    settling.died_again(record(4), 77, death)

    assert settling.known_ids() == {1, 2, 3, 4}
    assert settling.is_pressing
