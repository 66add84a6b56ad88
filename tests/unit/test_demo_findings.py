"""The demo's check: every way in which a log can break the promise is found, and a log that keeps it is not blamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from outboxd.demo.findings import Place, problems
from outboxd.demo.reader import ReadRecord
from outboxd.demo.writer import WrittenRow


def row(row_id: int, key: str = "a", *, is_poison: bool = False) -> WrittenRow:
    return WrittenRow(row_id, UUID(int=row_id), "orders", key, b"payload %d" % row_id, is_poison)


def record(row_id: int, offset: int, key: str = "a", partition: int = 0) -> ReadRecord:
    return ReadRecord("orders", partition, offset, key, b"payload %d" % row_id, row_id, str(UUID(int=row_id)))


WRITTEN = [row(1), row(2, "b"), row(3), row(4, is_poison=True), row(5)]
READ = [record(1, 0), record(2, 1, "b"), record(3, 2), record(5, 3)]


def places(read: list[ReadRecord]) -> dict[int, Place]:
    return {each.outbox_id: Place(each.partition, each.offset) for each in read if each.outbox_id is not None}


def test_a_log_as_promised_has_no_problem() -> None:
    assert problems(WRITTEN, READ, {4}, places(READ)) == []


def swap(read: list[ReadRecord], left: int, right: int) -> list[ReadRecord]:
    swapped = list(read)
    swapped[left] = replace(read[right], offset=read[left].offset)
    swapped[right] = replace(read[left], offset=read[right].offset)
    return swapped


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda read: read[:1] + read[2:], "dropped: 1 (row 2)"),
        (lambda read: [*read, record(2, 4, "b")], "repeated: 1 (row 2 at orders-0@4)"),
        (lambda read: swap(read, 0, 2), "swapped: 1 (row 1 at orders-0@2, after row 3 of a)"),
        (lambda read: [*read[:3], record(5, 0, partition=1)], "swapped: 1 (row 5 at orders-1@0, after row 3 of a)"),
        (lambda read: [replace(read[0], payload=b"other"), *read[1:]], "altered: 1 (row 1 at orders-0@0)"),
        (lambda read: [*read, record(99, 4)], "altered: 1 (row 99 at orders-0@4)"),
        (lambda read: [*read, record(4, 4)], "dead, and delivered all the same: 1 (row 4)"),
        (lambda read: [replace(read[0], event_id=None), *read[1:]], "altered: 1 (row 1 at orders-0@0)"),
    ],
)
def test_each_way_to_break_the_promise_is_found(
    spoil: Callable[[list[ReadRecord]], list[ReadRecord]], expected: str
) -> None:
    spoiled = spoil(READ)
    assert expected in problems(WRITTEN, spoiled, {4}, places(spoiled))


def test_a_row_that_is_not_where_the_outbox_says_is_found() -> None:
    assert problems(WRITTEN, READ, {4}, {**places(READ), 1: Place(0, 7)}) == [
        "not where the outbox says: 1 (row 1 at orders-0@0)"
    ]


def test_a_row_dead_without_a_fault_and_a_poison_row_that_lives_are_found() -> None:
    read = READ[:-1]
    assert problems(WRITTEN, read, {4, 5}, places(read)) == ["wrongly dead: 1 (row 5)"]
    assert "poison, and not dead: 1 (row 4)" in problems(WRITTEN, READ, set(), places(READ))


def test_many_findings_are_counted_and_few_are_shown() -> None:
    written = [row(number) for number in range(1, 11)]
    assert problems(written, [], set(), {}) == ["dropped: 10 (row 1, 2, 3, 4, 5 and 5 more)"]
