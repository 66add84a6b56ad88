"""Rows of a fetch as records."""

from __future__ import annotations

from typing import Any

from outboxd.policy.rows.records import Record
from outboxd.postgres.store.record_rows import records_of


def fresh(text: str) -> str:
    """An equal text that is an object of its own, as the driver makes one for each row."""
    return text.encode().decode()


def row(record_id: int, key: str | None) -> tuple[Any, ...]:
    headers, created_at_ms, size_bytes = fresh('{"a": "b"}'), int("17" * 6), int("600")
    event_id, topic = f"event-{record_id}", fresh("orders")
    return (6, record_id, event_id, topic, key, b"payload", headers, None, created_at_ms, size_bytes)


def test_rows_become_records_of_the_wanted_type_with_the_same_fields() -> None:
    class Special(Record):
        __slots__ = ()

    rows = [row(1, "a"), row(2, None), row(3, "b")]

    records = records_of(rows, Special, {})

    assert [type(record) for record in records] == [Special, Special, Special]
    assert [tuple(record) for record in records] == rows
    assert records_of([], Special, {}) == []


def test_what_is_equal_in_many_rows_is_in_memory_once() -> None:
    values: dict[object, Any] = {}
    first, second = records_of([row(1, fresh("key")), row(2, fresh("key"))], Record, values)
    (of_the_next_piece,) = records_of([row(3, fresh("key"))], Record, values)

    for shared in ("topic", "key", "headers", "created_at_ms", "size_bytes"):
        assert getattr(first, shared) is getattr(of_the_next_piece, shared)
        assert getattr(first, shared) is getattr(second, shared)
