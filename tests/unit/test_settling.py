"""What the next settlement has, and since when what is left of it waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason, Retry
from outboxd.policy.faults import own_fault
from outboxd.relay.memory.settling import Settling
from tests.unit.records import record

DEATH = DeadLetter(DeathReason.INVALID, own_fault("INVALID_HEADERS"), "why", 1, holds_key=False)
RETRY = Retry(own_fault("IN_FLIGHT_TOO_OLD"), "why", 1, 0.5)


def deliver(settling: Settling, *ids: int) -> None:
    settling.ids += ids
    settling.partitions += [0] * len(ids)
    settling.offsets += ids


def test_what_one_settlement_has_no_room_for_is_due_as_of_its_own_delivery() -> None:
    settling = Settling(rows_max=2)
    settling.ids += [1, 2, 3]
    settling.partitions += [0, 0, 0]
    settling.offsets += [7, 8, 9]
    settling.first_at = 1.0

    first = settling.take()
    assert first is not None
    assert first.delivered_ids == [1, 2]
    assert settling.first_at == 1.0, "a row that waits without a beginning would wait for ever"
    settling.done()

    second = settling.take()
    assert second is not None
    assert (second.delivered_ids, second.delivered_offsets) == ([3], [9])
    assert settling.first_at is None


def test_beside_refused_rows_too_no_transaction_is_settled_before_the_replay_that_it_delivered() -> None:
    """Whoever comes after a crash in between would not find the replay in Kafka, and send it again."""
    settling = Settling(rows_max=10)
    settling.dead(1, DEATH)
    buried = settling.take()
    assert buried is not None
    assert settling.refused(buried, 0.0), "it is set aside, and tried again later"

    settling.replayed(record(2), 7, 0, 9)
    settling.mark(5)

    assert not settling.has_transaction
    settled = settling.take()
    assert settled is not None
    assert ([entry[0] for entry in settled.replayed], settled.transaction) == ([7], 5)


@pytest.mark.parametrize("is_recovered", [False, True])
def test_a_transaction_whose_replay_is_refused_is_not_settled_by_itself(is_recovered: bool) -> None:
    settling = Settling(rows_max=10)
    if is_recovered:
        settling.recovered_replays.append((2, 0, 9, None, None))
    else:
        settling.replayed(record(2), 7, 0, 9)
    settling.mark(5)
    settlement = settling.take()
    assert settlement is not None
    assert settlement.transaction == 5

    assert settling.refused(settlement, 0.0)

    assert not settling.has_transaction


def test_parts_of_what_was_refused_and_what_was_not_are_given_in_turns() -> None:
    settling = Settling(rows_max=10)
    deliver(settling, 1, 2, 3, 4)
    refused = settling.take()
    assert refused is not None
    assert not settling.refused(refused, 0.0)
    deliver(settling, 8)

    given: list[list[int]] = []
    while (settlement := settling.take()) is not None:
        given.append(list(settlement.delivered_ids))
        settling.refusals.ended()
        settling.done()
        if len(given) == 2:
            deliver(settling, 9)

    assert [ids in ([8], [9]) for ids in given[:4]] == [False, True, False, True]
    assert sorted(row for ids in given for row in ids) == [1, 2, 3, 4, 8, 9]


def test_transactions_that_are_settled_wait_no_more() -> None:
    settling = Settling(rows_max=10)
    for transaction in (4, 5, 6):
        deliver(settling, transaction)
        settling.mark(transaction)
    assert settling.transactions == 3

    settlement = settling.take()
    assert settlement is not None
    assert settlement.transaction == 6
    settling.done()
    deliver(settling, 7)
    settling.mark(7)

    assert settling.transactions == 1


@pytest.mark.parametrize(
    "note",
    [
        lambda settling: deliver(settling, 1),
        lambda settling: settling.retry(1, RETRY),
        lambda settling: settling.dead(1, DEATH),
        lambda settling: settling.replayed(record(1), 7, 0, 9),
        lambda settling: settling.recovered_replays.append((1, 0, 9, None, None)),
        lambda settling: settling.died_again(record(1), 7, DEATH),
        lambda settling: settling.out_of_retry(1),
        lambda settling: settling.storm("orders", "a storm"),
    ],
    ids=["delivered", "retry", "dead", "replayed", "recovered", "died again", "out of retry", "storm"],
)
def test_whatever_is_to_be_written_is_written_though_nothing_else_is(note: Callable[[Settling], None]) -> None:
    settling = Settling(rows_max=10)
    note(settling)
    assert not settling.is_empty

    settlement = settling.take()
    assert settlement is not None
    assert settlement.entries == 1
    assert not settling.is_empty
    settling.done()

    assert settling.is_empty


def test_a_row_whose_outcome_is_known_is_known_until_that_is_written_whatever_becomes_of_its_settlement() -> None:
    """What the next producer is given again is all that is not among these."""
    settling = Settling(rows_max=10)
    deliver(settling, 1, 2)
    settling.retry(3, RETRY)
    for _ in range(2):
        settlement = settling.take()
        assert settlement is not None
        assert settling.known_ids() == {1, 2, 3}
        settling.failed(settlement)
        assert settling.known_ids() == {1, 2, 3}
    for _ in range(8):
        settlement = settling.take()
        if settlement is not None:
            settling.refused(settlement, 0.0)
        assert settling.known_ids() == {1, 2, 3}
    assert settling.refusals.rows_aside == 3
