"""Housekeeping in SQL: removes what is past its retention in small batches, and counts what is pending and dead.

Each step is a short transaction with a time limit of its own, which holds behind a pooler too. Published rows are
found along the primary key, since an index on `published_at` would cost every mark another entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row

from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.sql_text import in_schema
from outboxd.postgres.upkeep.backlog import ROWS_BEYOND
from outboxd.postgres.upkeep.due import OldestDue

STATEMENT_SECONDS_MAX = 10
LOCK_SECONDS_MAX = 1
COUNTED_MAX = 10_000
"""Rows are counted up to this number, so that a large backlog costs nothing to look at."""
KINDS_MAX = 200
LOOKED_AT_MAX = 50_000
"""Dead letters that one measurement reads, shared by their kinds: each has to be fetched from the table."""
ORPHANED_SECONDS_MIN = 60
STARTS_KEPT = 100
STARTS_KEPT_DAYS = 30

_LIMITS = """SELECT set_config('statement_timeout', :statement_timeout, true),
    set_config('lock_timeout', :lock_timeout, true)"""

# What is old enough in the next rows by id. Rows created after the limit cannot have been published before it, and ids
# are drawn about when rows are created: a batch without any earlier one is the end of the walk.
_WALK = """
    WITH batch AS (
        SELECT o.id, o.created_at, coalesce(o.published_at < now() - make_interval(secs => :seconds), false) AS is_due
          FROM @outbox@ o WHERE o.id > :cursor ORDER BY o.id LIMIT (SELECT CAST(:rows_max AS bigint)))
    SELECT array_agg(b.id) FILTER (WHERE b.is_due) AS due, min(b.id) FILTER (WHERE NOT b.is_due) AS first_kept,
           max(b.id) AS last, count(*) AS rows,
           coalesce(bool_or(b.created_at < now() - make_interval(secs => :seconds)), false) AS has_early
      FROM batch b"""
# Before they are deleted, so that a replay never believes that what it does not find was never published.
_NOTE = (
    """UPDATE @schema@.lease AS l SET deleted_through = :last WHERE l.outbox = :outbox AND l.deleted_through < :last"""
)
# The planner does not see how many they are: of many it prefers to read the whole of a table that is not large.
_DELETE = """DELETE FROM @outbox@ AS o WHERE o.id = ANY (CAST((SELECT CAST(:ids AS bigint[])) AS bigint[]))
    AND o.published_at < now() - make_interval(secs => :seconds)"""

# People set the status by hand too, and what has no time of its resolution would stay for ever.
_TIMED = """
    WITH chosen AS MATERIALIZED (
        SELECT d.id FROM @schema@.dead_letter d
         WHERE d.outbox = :outbox AND d.status IN ('replayed', 'discarded') AND d.resolved_at IS NULL
         LIMIT :rows_max FOR UPDATE SKIP LOCKED
    )
    UPDATE @schema@.dead_letter d SET resolved_at = now() FROM chosen WHERE d.id = chosen.id"""

_RESOLVED = """
    WITH chosen AS MATERIALIZED (
        SELECT d.id, d.outbox_id, d.status FROM @schema@.dead_letter d
         WHERE d.outbox = :outbox AND d.status IN ('replayed', 'discarded')
           AND d.resolved_at < now() - make_interval(secs => :seconds)
         ORDER BY d.resolved_at LIMIT :rows_max FOR UPDATE SKIP LOCKED
    ), noted AS (
        UPDATE @schema@.lease AS l SET deleted_through = c.last
          FROM (SELECT max(outbox_id) AS last FROM chosen WHERE status = 'replayed') AS c
         WHERE l.outbox = :outbox AND l.deleted_through < c.last
    ), gone AS (
        DELETE FROM @schema@.dead_letter d USING chosen WHERE d.id = chosen.id RETURNING 1
    )
    SELECT count(*) FROM gone"""

_ORPHANS = """
    WITH chosen AS MATERIALIZED (
        SELECT r.outbox_id FROM @schema@.retry r
         WHERE r.outbox = :outbox AND r.first_failed_at < now() - make_interval(secs => :seconds_min)
           AND NOT EXISTS (SELECT FROM @outbox@ o WHERE o.id = r.outbox_id AND o.published_at IS NULL)
           AND NOT EXISTS (SELECT FROM @schema@.dead_letter d WHERE d.outbox = r.outbox AND d.outbox_id = r.outbox_id
                              AND d.status = 'replaying')
         ORDER BY r.outbox_id LIMIT :rows_max
    ), gone AS (
        DELETE FROM @schema@.retry r USING chosen
         WHERE r.outbox = :outbox AND r.outbox_id = chosen.outbox_id RETURNING 1
    )
    SELECT count(*) FROM gone"""

_STARTS = """
    WITH chosen AS MATERIALIZED (
        SELECT s.id, s.started_at FROM @schema@.start s WHERE s.outbox = :outbox
         ORDER BY s.id DESC OFFSET :kept LIMIT :rows_max
    ), gone AS (
        DELETE FROM @schema@.start s USING chosen
         WHERE s.id = chosen.id AND chosen.started_at < now() - make_interval(days => :days) RETURNING 1
    )
    SELECT count(*) FROM gone"""

# In order and with a limit that the planner cannot see, so that it goes by the index of what is pending: it may else
# read all of it.
_BACKLOG = """
    SELECT count(*) AS pending, max(bounded.id) AS last_id,
           (SELECT count(*) FROM (SELECT FROM @schema@.retry r WHERE r.outbox = :outbox
                                   LIMIT :counted_max + 1) AS bounded) AS in_retry,
           now() AS now
      FROM (SELECT o.id FROM @outbox@ AS o WHERE o.published_at IS NULL
             ORDER BY o.id LIMIT (SELECT :counted_max + 1)) AS bounded"""

# From kind to kind along the index, not through every dead letter; the more kinds, the fewer of each are counted.
_KINDS = """
    WITH RECURSIVE kind AS (
        (SELECT hashtextextended(d.topic, 0) AS hash, d.topic, d.error_code FROM @schema@.dead_letter d
          WHERE d.status = 'dead' ORDER BY hashtextextended(d.topic, 0), d.error_code LIMIT 1)
        UNION ALL
        SELECT n.hash, n.topic, n.error_code FROM kind k CROSS JOIN LATERAL (
            SELECT hashtextextended(d.topic, 0) AS hash, d.topic, d.error_code FROM @schema@.dead_letter d
             WHERE d.status = 'dead' AND (hashtextextended(d.topic, 0), d.error_code) > (k.hash, k.error_code)
             ORDER BY hashtextextended(d.topic, 0), d.error_code LIMIT 1) AS n
    ), chosen AS MATERIALIZED (
        SELECT * FROM kind LIMIT :kinds_max
    ), bound AS MATERIALIZED (
        SELECT greatest(250, least(:counted_max, :looked_at_max / greatest(count(*), 1))) AS rows FROM chosen
    )
    SELECT k.topic, k.error_code, c.rows, c.looked_at >= (SELECT b.rows FROM bound b) AS is_more, c.sample_id
      FROM chosen AS k
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE b.outbox = :outbox) AS rows, count(*) AS looked_at,
                  max(b.id) FILTER (WHERE b.outbox = :outbox) AS sample_id
             FROM (SELECT d.id, d.outbox FROM @schema@.dead_letter d
                    WHERE d.status = 'dead' AND hashtextextended(d.topic, 0) = k.hash AND d.error_code = k.error_code
                    ORDER BY d.died_at DESC, d.id DESC LIMIT (SELECT b.rows FROM bound b)) AS b) AS c"""
# Asked only where there are more kinds than are told apart.
_ALL_DEAD = """
    SELECT count(*) FILTER (WHERE b.outbox = :outbox) AS rows, count(*) AS looked_at
      FROM (SELECT d.outbox FROM @schema@.dead_letter d WHERE d.status = 'dead'
             ORDER BY d.died_at DESC, d.id DESC LIMIT (SELECT CAST(:looked_at_max AS bigint) + 1)) AS b"""


@dataclass(frozen=True, slots=True)
class Walked:
    """One step along the outbox: rows removed, the last id seen, the first that stays, and whether it was the end."""

    removed: int
    last_id: int
    first_kept_id: int | None
    at_end: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """Dead letters of one topic and error code; `is_more`: there may be more than `rows`."""

    topic: str
    error_code: str
    rows: int
    sample_id: int
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What is pending and dead. Pending counts above `COUNTED_MAX` mean more than that, about `pending_estimate`, which
    else is the same.

    `oldest_pending_seconds` is since when the oldest row is due. `other_dead` counts the dead letters of further kinds,
    where there are more than `KINDS_MAX`; `other_dead_is_more`: there may be more of them.
    """

    pending: int
    pending_estimate: int
    oldest_pending_seconds: float
    in_retry: int
    kinds: tuple[Kind, ...]
    other_dead: int = 0
    other_dead_is_more: bool = False


class Housekeeping:
    """Housekeeping for one outbox. Errors are those of `outboxd.errors`, in sentences."""

    def __init__(self, engine: Engine, schema: str, table: str, outbox: str) -> None:
        """`table` is the outbox table in `schema`, `outbox` its configured name."""
        self._engine = engine
        self._schema = schema
        self._table = table
        self._outbox = outbox
        self._oldest_due = OldestDue(engine, schema, table)

    def remove_published(self, cursor: int, rows_max: int, retention_seconds: float) -> Walked:
        """Look at the next `rows_max` rows after the id `cursor`; remove those published longer ago than the
        retention.
        """
        row = self._row(_WALK, cursor=cursor, rows_max=rows_max, seconds=retention_seconds)
        removed = 0
        if row.due:
            self._changed(_NOTE, last=max(row.due))
            removed = self._changed(_DELETE, ids=row.due, seconds=retention_seconds)
        last_id = cursor if row.last is None else row.last
        return Walked(removed, last_id, row.first_kept, row.rows < rows_max or not row.has_early)

    def time_resolved(self, rows_max: int) -> int:
        """Note now as the time of dead letters that were resolved by hand without one; return how many."""
        return self._changed(_TIMED, rows_max=rows_max)

    def remove_resolved(self, rows_max: int, retention_seconds: float) -> int:
        """Remove replayed and discarded dead letters that were resolved longer ago than this; return how many."""
        found = self._row(_RESOLVED, rows_max=rows_max, seconds=retention_seconds)
        return int(found[0])

    def remove_orphaned_retries(self, rows_max: int) -> int:
        """Remove rows of `retry` whose outbox row is published or gone; return how many."""
        return int(self._row(_ORPHANS, rows_max=rows_max, seconds_min=ORPHANED_SECONDS_MIN)[0])

    def remove_old_starts(self, rows_max: int) -> int:
        """Remove notes of starts long ago, but for the latest hundred; return how many."""
        return int(self._row(_STARTS, rows_max=rows_max, kept=STARTS_KEPT, days=STARTS_KEPT_DAYS)[0])

    def measure(self) -> Measured:
        """Count what is pending, in retry and dead."""
        row = self._row(_BACKLOG, counted_max=COUNTED_MAX)
        # An idle outbox is not asked what none of its rows can tell: each question is a transaction of four statements.
        due_at = self._oldest_due.at() if row.pending else None
        looked_at = {"counted_max": COUNTED_MAX, "kinds_max": KINDS_MAX + 1, "looked_at_max": LOOKED_AT_MAX}
        found = [Kind(**kind._mapping) for kind in self._rows(_KINDS, **looked_at)]
        # Of other outboxes too, some of them: those have no rows here.
        kinds = tuple(kind for kind in found[:KINDS_MAX] if kind.rows)
        other_dead, other_dead_is_more = self._count_others(kinds) if len(found) > KINDS_MAX else (0, False)
        return Measured(
            pending=row.pending,
            pending_estimate=row.pending + (self._rows_beyond(row.last_id) if row.pending > COUNTED_MAX else 0),
            oldest_pending_seconds=0.0 if due_at is None else max(0.0, (row.now - due_at).total_seconds()),
            in_retry=row.in_retry,
            kinds=kinds,
            other_dead=other_dead,
            other_dead_is_more=other_dead_is_more,
        )

    def _rows_beyond(self, last_id: int) -> int:
        rows: int = self._row(ROWS_BEYOND, last_id=last_id).rows
        return rows

    def _count_others(self, kinds: Sequence[Kind]) -> tuple[int, bool]:
        """Count the dead letters that are of none of these kinds, and say whether there may be more of them."""
        dead = self._row(_ALL_DEAD, looked_at_max=LOOKED_AT_MAX)
        return max(0, dead.rows - sum(kind.rows for kind in kinds)), dead.looked_at > LOOKED_AT_MAX

    def _row(self, sql: str, **values: object) -> Row[Any]:
        return self._rows(sql, **values)[0]

    def _rows(self, sql: str, **values: object) -> Sequence[Row[Any]]:
        return self._run(sql, values)[0]

    def _changed(self, sql: str, **values: object) -> int:
        return self._run(sql, values)[1]

    def _run(self, sql: str, values: dict[str, object]) -> tuple[Sequence[Row[Any]], int]:
        """Run one statement in a transaction with limits of its own; return its rows, and how many it changed."""
        limits = {"statement_timeout": f"{STATEMENT_SECONDS_MAX}s", "lock_timeout": f"{LOCK_SECONDS_MAX}s"}
        statement = in_schema(sql, self._schema, table=self._table)
        with explained(), self._engine.connect() as pooled:
            connection = pooled.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.execute(in_schema(_LIMITS, self._schema), limits)
                result = connection.execute(statement, {"outbox": self._outbox, **values})
                return (result.all() if result.returns_rows else []), result.rowcount
