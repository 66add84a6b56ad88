"""What was written held against what the broker has: nothing dropped, swapped, repeated or altered. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from outboxd.demo.reader import ReadRecord
from outboxd.demo.writer import WrittenRow

SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon says that it delivered a row."""

    partition: int
    offset: int


def problems(
    written: Sequence[WrittenRow],
    read: Sequence[ReadRecord],
    dead_ids: Collection[int],
    places: Mapping[int, Place],
) -> list[str]:
    """Every way in which the log is not what was promised, in sentences; empty when all is well.

    Args:
        written: the committed rows.
        read: the log, in the order of each partition.
        dead_ids: rows in the dead-letter table.
        places: row → where the outbox table says it is.
    """
    rows = {row.id: row for row in written}
    return [
        *_counted("dropped", _dropped(rows, read, dead_ids)),
        *_counted("repeated", _repeated(read)),
        *_counted("swapped", _swapped(read)),
        *_counted("altered", _altered(rows, read)),
        *_counted("not where the outbox says", _misplaced(read, places)),
        *_counted(
            "dead, and delivered all the same", [str(each.outbox_id) for each in read if each.outbox_id in dead_ids]
        ),
        *_counted("wrongly dead", [str(row.id) for row in written if row.id in dead_ids and not row.is_poison]),
        *_counted("poison, and not dead", [str(row.id) for row in written if row.is_poison and row.id not in dead_ids]),
    ]


def _counted(what: str, found: Collection[str]) -> Iterator[str]:
    if found:
        shown = ", ".join(list(found)[:SHOWN_MAX])
        more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        yield f"{what}: {len(found)} (row {shown}{more})"


def _dropped(rows: Mapping[int, WrittenRow], read: Sequence[ReadRecord], dead_ids: Collection[int]) -> list[str]:
    there = {record.outbox_id for record in read}
    return [str(row_id) for row_id in rows if row_id not in there and row_id not in dead_ids]


def _repeated(read: Sequence[ReadRecord]) -> list[str]:
    seen: set[int | None] = set()
    repeated = []
    for record in read:
        if record.outbox_id in seen:
            repeated.append(f"{record.outbox_id} at {_shown(record)}")
        seen.add(record.outbox_id)
    return repeated


def _swapped(read: Sequence[ReadRecord]) -> list[str]:
    newest: dict[tuple[str, str | None], tuple[int, int]] = {}
    swapped = []
    for record in read:
        line = (record.topic, record.key)
        partition, before = newest.get(line, (record.partition, -1))
        row_id = record.outbox_id or 0
        # A key in two partitions has no order between them, so that is a break of order too.
        if row_id < before or record.partition != partition:
            swapped.append(f"{row_id} at {_shown(record)}, after row {before} of {record.key}")
        newest[line] = (record.partition, max(row_id, before))
    return swapped


def _altered(rows: Mapping[int, WrittenRow], read: Sequence[ReadRecord]) -> list[str]:
    altered = []
    for record in read:
        row = None if record.outbox_id is None else rows.get(record.outbox_id)
        if row is None or (row.topic, row.key, row.payload, str(row.event_id)) != (
            record.topic, record.key, record.payload, record.event_id,
        ):  # fmt: skip
            altered.append(f"{record.outbox_id} at {_shown(record)}")
    return altered


def _misplaced(read: Sequence[ReadRecord], places: Mapping[int, Place]) -> list[str]:
    return [
        f"{record.outbox_id} at {_shown(record)}"
        for record in read
        if record.outbox_id is not None and places.get(record.outbox_id) != Place(record.partition, record.offset)
    ]


def _shown(record: ReadRecord) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"
