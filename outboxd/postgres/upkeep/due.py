"""Since when the oldest pending row is due, however many rows that wait for a later time stand before it.

A row that has a time of its own is found by the index of those. The others are found along the pending rows by id, in
steps; where only rows with a time of their own were found, the next look goes on behind them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, TextClause

from outboxd.policy.rows.records import FIRST_ID
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.sql_text import in_schema

STEP_ROWS: Final = 10_000
STEPS_MAX: Final = 10
"""One look reads so many steps at most: 100,000 rows, and few where rows seldom have a time of their own."""

# Without sorting, the index in order of `available_at` is the only way: by old statistics, to read and sort all that is
# pending looks as cheap.
_LIMITS = """SELECT set_config('statement_timeout', '10s', true), set_config('lock_timeout', '1s', true),
    set_config('enable_sort', 'off', true)"""
# An application may write any time. What is not over is due since now, and what never began has no age; Python has no
# year before the first.
_HELD_BY_PYTHON = (
    "CASE WHEN {at} = '-infinity' THEN now()"
    " ELSE greatest(least({at}, now()), CAST('0001-01-02 00:00:00+00' AS timestamptz)) END"
)
_TIMED = f"""
    SELECT min({_HELD_BY_PYTHON.format(at="greatest(t.created_at, t.available_at)")}) AS due_at
      FROM (SELECT o.created_at, o.available_at FROM @outbox@ AS o
             WHERE o.published_at IS NULL AND o.available_at <= now()
             ORDER BY o.available_at, o.id LIMIT (SELECT CAST(:rows_max AS bigint))) AS t"""
_STEP = f"""
    SELECT min({_HELD_BY_PYTHON.format(at="p.created_at")}) FILTER (WHERE p.available_at IS NULL) AS due_at,
           min(p.id) FILTER (WHERE p.available_at IS NULL) AS due_id, max(p.id) AS last_id, count(*) AS rows
      FROM (SELECT o.id, o.created_at, o.available_at FROM @outbox@ AS o
             WHERE o.published_at IS NULL AND o.id > :cursor
             ORDER BY o.id LIMIT (SELECT CAST(:rows_max AS bigint))) AS p"""


class OldestDue:
    """Looks for the oldest due row of one outbox table, and remembers how far none can be."""

    def __init__(self, engine: Engine, schema: str, table: str) -> None:
        """`table` is the outbox table in `schema`."""
        self._engine = engine
        self._limits = in_schema(_LIMITS, schema)
        self._timed = in_schema(_TIMED, schema, table=table)
        self._step = in_schema(_STEP, schema, table=table)
        self._passed_id = FIRST_ID
        """Up to here only rows with a time of their own were found."""
        self._passed_again_id = FIRST_ID
        """The same walk once more, a step a look: rows that were committed late, or whose time was taken away."""

    def at(self) -> datetime | None:
        """Since when the oldest due row is due; None where none is, or none among the rows that one look reads."""
        with explained(), self._engine.connect() as pooled:
            connection = pooled.execution_options(isolation_level="READ COMMITTED")
            found = (self._ask(connection, self._timed).due_at, self._untimed_at(connection))
        return min((at for at in found if at is not None), default=None)

    def _untimed_at(self, connection: Connection) -> datetime | None:
        row = self._again(connection)
        for _ in range(STEPS_MAX - 1):
            if row.due_id is not None or row.rows < STEP_ROWS:
                break
            row = self._ask(connection, self._step, cursor=self._passed_id)
            if row.due_id is not None:
                self._passed_id = row.due_id - 1
            elif row.last_id is not None:
                self._passed_id = row.last_id
        due_at: datetime | None = row.due_at
        return due_at

    def _again(self, connection: Connection) -> Row[Any]:
        """One step from the beginning, or from where the last one ended; mostly it finds a due row at once."""
        row = self._ask(connection, self._step, cursor=self._passed_again_id)
        if row.due_id is not None:
            self._passed_id, self._passed_again_id = row.due_id - 1, FIRST_ID
        elif row.rows < STEP_ROWS:
            self._passed_again_id = FIRST_ID
        else:
            self._passed_id, self._passed_again_id = max(self._passed_id, row.last_id), row.last_id
        return row

    def _ask(self, connection: Connection, statement: TextClause, **values: int) -> Row[Any]:
        # A transaction for each: none is long, and the limits hold behind a pooler too.
        with connection.begin():
            connection.execute(self._limits)
            return connection.execute(statement, {"rows_max": STEP_ROWS, **values}).one()
