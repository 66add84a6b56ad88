"""From the rows of a fetch to records. Equal values of one answer become one object, so that memory holds them once.

A backlog names few topics, and its keys, headers, times and sizes come again and again. What is shared stays in the
processor's cache, and is compared by being the same; what is not has to come from memory once more when it is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outboxd.policy.rows.records import Record


def records_of(rows: Sequence[tuple[Any, ...]], record_type: type[Record], values: dict[object, Any]) -> list[Record]:
    """Return the rows, whose columns are a record's fields in order, as records of this type. `values` are the answer's
    own: what was shared so far.
    """
    same = values.setdefault
    # `tuple.__new__` makes a record from what it is given as it is. One pass over the rows: each further one would have
    # to bring thousands of them from memory again, and column by column took half as long again as this.
    new = tuple.__new__
    return [
        new(
            record_type,
            (
                row[0],
                row[1],
                row[2],
                same(row[3], row[3]),
                same(row[4], row[4]),
                row[5],
                same(row[6], row[6]),
                row[7],
                same(row[8], row[8]),
                same(row[9], row[9]),
            ),
        )
        for row in rows
    ]
