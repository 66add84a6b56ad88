"""From the rows of a fetch to records. Equal values of one answer become one object, so that memory holds them once.

A backlog names few topics, and its keys, headers and times come again and again; what is shared stays in the
processor's cache, and is compared by being the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from outboxd.policy.records import Record


def records_of(rows: Sequence[tuple[Any, ...]], record_type: type[Record]) -> list[Record]:
    """Return the rows, whose columns are a record's fields in order, as records of this type."""
    if not rows:
        return []
    values: dict[object, object] = {}
    shared = values.setdefault

    def same(column: Sequence[object]) -> Iterator[object]:
        return map(shared, column, column)

    arms, ids, event_ids, topics, keys, payloads, headers, partitions, created_at_ms, sizes = zip(*rows, strict=True)
    columns = (arms, ids, event_ids, same(topics), same(keys), payloads, same(headers))
    # Column by column, without a line of Python a row; `tuple.__new__` makes a record from what it is given as it is.
    return list(
        map(
            partial(tuple.__new__, record_type),
            zip(*columns, partitions, same(created_at_ms), same(sizes), strict=True),
        )
    )
