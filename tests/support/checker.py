"""Holds what reached Kafka against what was committed: nothing lost, in order, unchanged, and where the marks say.

What was committed is noted by the database itself: a trigger copies each row of the outbox into a table beside it, in
the same transaction, so that no crash of a writer or of the server leaves a doubt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.support.kafka_admin import KafkaRecord

WITNESS = """
CREATE TABLE public.written (
    id bigint PRIMARY KEY, event_id uuid, topic text, key text, payload bytea, headers jsonb, partition int,
    created_at timestamptz, available_at timestamptz
);
CREATE FUNCTION public.note_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.written SELECT id, event_id, topic, key, payload, headers, partition, created_at, available_at
    FROM fresh;
    RETURN NULL;
END $$;
CREATE TRIGGER note_written AFTER INSERT ON outboxd.outbox REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION public.note_written();
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A committed row."""

    id: int
    event_id: str
    topic: str
    key: str | None
    payload: bytes | None
    headers: list[tuple[str, str | None]]
    partition: int | None
    created_at_ms: float | None


@dataclass
class Verdict:
    """What was found. Everything in a list is a violation of a guarantee."""

    written: int = 0
    delivered: int = 0
    records: int = 0
    dead: int = 0
    pending: int = 0
    published: int = 0
    lost: list[int] = field(default_factory=list)
    ghosts: list[int] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    inverted: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Records that repeat an earlier one."""
        return self.records - self.delivered - len(self.ghosts)

    def assert_holds(self, *, dead: int = 0, pending: int = 0, duplicates_max: int = 0) -> None:
        """Fail with everything that does not hold."""
        wrong = [
            f"{len(found)} {name}: {found[:5]}"
            for name in ("lost", "ghosts", "changed", "inverted", "misplaced")
            if (found := getattr(self, name))
        ]
        if self.dead != dead:
            wrong.append(f"{self.dead} dead, not {dead}")
        if self.pending != pending:
            wrong.append(f"{self.pending} pending, not {pending}")
        if self.duplicates > duplicates_max:
            wrong.append(f"{self.duplicates} duplicates, more than {duplicates_max}")
        assert not wrong, f"of {self.written} rows, {self.delivered} delivered: " + "; ".join(wrong)


def witness(connection: psycopg.Connection[Any]) -> None:
    """Let the database note every committed row from now on."""
    connection.execute(WITNESS)


def check(
    connection: psycopg.Connection[Any],
    records: Sequence[KafkaRecord],
    *,
    source: str = "default",
    unordered: Collection[int] = (),
    edited: Collection[int] = (),
    lossy_topics: Collection[str] = (),
    ignore_places_of: Collection[str] = (),
) -> Verdict:
    """Compare, and return what was found.

    `unordered` are ids whose place in their key's order does not count: replayed after newer rows, delayed, or drawn
    long before their insert. `edited` are ids that an operator changed among the dead letters. Rows of `lossy_topics`
    may be missing in Kafka. Places noted for `ignore_places_of` are not looked at: such a topic was made anew.
    """
    rows = {row.id: row for row in _written(connection)}
    published = {
        record_id: (partition, offset)
        for record_id, partition, offset in connection.execute(
            "SELECT id, published_partition, published_offset FROM outboxd.outbox WHERE published_at IS NOT NULL"
        )
    }
    pending = {
        record_id for (record_id,) in connection.execute("SELECT id FROM outboxd.outbox WHERE published_at IS NULL")
    }
    dead = {
        record_id
        for (record_id,) in connection.execute(
            "SELECT outbox_id FROM outboxd.dead_letter WHERE status IN ('dead', 'replaying', 'discarded')"
        )
    }
    verdict = Verdict(written=len(rows), records=len(records), dead=len(dead), pending=len(pending))
    verdict.published = len(published)
    first = _first_deliveries(records)
    _compare(verdict, rows, first, source, edited)
    verdict.delivered = len(first) - len(verdict.ghosts)
    verdict.lost = [
        row.id
        for row in rows.values()
        if row.id not in first and row.id not in dead and row.id not in pending and row.topic not in lossy_topics
    ]
    verdict.inverted = list(_inversions(rows, first.values(), set(unordered)))
    verdict.misplaced = list(_misplaced(rows, published, records, {*lossy_topics, *ignore_places_of}))
    return verdict


def id_of(record: KafkaRecord) -> int:
    """The outbox row's id that the record carries."""
    value = dict(record.headers)["outbox-id"]
    assert value is not None
    return int(value)


def _written(connection: psycopg.Connection[Any]) -> Iterable[Row]:
    for record_id, event_id, topic, key, payload, headers, partition, created_at_ms in connection.execute(
        "SELECT id, event_id::text, topic, key, payload, headers::text, partition,"
        " CASE WHEN isfinite(created_at) THEN floor(date_part('epoch', created_at) * 1000) END FROM public.written"
    ):
        parsed = [] if headers == "{}" else json.loads(headers)
        pairs = (
            [(name, value) for name, value in (parsed.items() if isinstance(parsed, dict) else parsed)]
            if _is_pairs(parsed)
            else []
        )
        yield Row(record_id, event_id, topic, key, payload, pairs, partition, created_at_ms)


def _is_pairs(parsed: Any) -> bool:
    """Rows with headers of another shape are poison, and never compared."""
    if isinstance(parsed, dict):
        return True
    return isinstance(parsed, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in parsed)


def _first_deliveries(records: Sequence[KafkaRecord]) -> dict[int, KafkaRecord]:
    first: dict[int, KafkaRecord] = {}
    for record in records:
        first.setdefault(id_of(record), record)
    return first


def _compare(
    verdict: Verdict, rows: dict[int, Row], first: dict[int, KafkaRecord], source: str, edited: Collection[int]
) -> None:
    for record_id, record in first.items():
        row = rows.get(record_id)
        if row is None:
            verdict.ghosts.append(record_id)
        elif record_id not in edited and (difference := _difference(row, record, source)):
            verdict.changed.append(f"{record_id}: {difference}")


def _difference(row: Row, record: KafkaRecord, source: str) -> str | None:
    headers = [(name, None if value is None else value.encode()) for name, value in row.headers]
    headers += [("outbox-id", str(row.id).encode()), ("outbox-event-id", row.event_id.encode())]
    headers.append(("outbox-source", source.encode()))
    if list(record.headers) != headers:
        return f"headers {record.headers}, written {headers}"
    if record.topic != row.topic or (row.partition is not None and record.partition != row.partition):
        return f"in {record.topic}-{record.partition}, written for {row.topic}-{row.partition}"
    if record.key != (None if row.key is None else row.key.encode()):
        return f"key {record.key!r}, written {row.key!r}"
    if record.value != row.payload:
        return "another payload"
    if row.created_at_ms is not None and abs(record.timestamp_ms - row.created_at_ms) > 1:
        return f"time {record.timestamp_ms}, written {row.created_at_ms}"
    return None


def _inversions(rows: dict[int, Row], first: Iterable[KafkaRecord], unordered: set[int]) -> Iterable[str]:
    """First deliveries of a key that came after those of newer rows. Consumed records stand in offset order."""
    newest: dict[tuple[str, str, int], int] = defaultdict(int)
    for record in first:
        record_id = id_of(record)
        row = rows.get(record_id)
        if row is None or row.key is None or record_id in unordered:
            continue
        place = (row.topic, row.key, record.partition)
        if record_id < newest[place]:
            yield f"{record_id} of {row.topic}/{row.key} came after {newest[place]}"
        newest[place] = max(newest[place], record_id)


def _misplaced(
    rows: dict[int, Row],
    published: dict[int, tuple[int | None, int | None]],
    records: Sequence[KafkaRecord],
    ignored_topics: Collection[str],
) -> Iterable[str]:
    at = {(record.topic, record.partition, record.offset): id_of(record) for record in records}
    for record_id, (partition, offset) in published.items():
        row = rows[record_id]
        if row.topic in ignored_topics:
            continue
        if partition is None or offset is None:
            yield f"{record_id}: no place is noted"
        elif (found := at.get((row.topic, partition, offset))) != record_id:
            yield f"{record_id}: {row.topic}-{partition}@{offset} holds {found}"
