"""What a database was asked, and what that cost it, by `pg_stat_statements`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psycopg
import pytest

from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection

_COUNTED = """
    SELECT coalesce(sum(s.calls), 0)::bigint, coalesce(sum(s.wal_bytes), 0)::bigint
      FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
     WHERE d.datname = current_database() AND s.query !~ 'pg_stat_|pg_sleep'"""


@dataclass(frozen=True)
class Cost:
    """Statements, and the bytes of write-ahead log that they made. Pages written whole after a checkpoint are not in
    it: they depend on when that was, and the tests' servers write none.
    """

    statements: int
    wal_bytes: int

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(self.statements - earlier.statements, self.wal_bytes - earlier.wal_bytes)


class StatementCounts:
    """Counts what is executed in one database, whoever asks, but for the counting and for waiting."""

    def __init__(self, database: Database, connection: Connection) -> None:
        """Begin to count; skip the test where PostgreSQL cannot."""
        self._connection = connection
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        except psycopg.Error as missing:
            if os.environ.get("CI") == "true" and database.server.installation.has_module("pg_stat_statements"):
                raise
            pytest.skip(f"this PostgreSQL has no pg_stat_statements (it is in postgresql-contrib): {missing}")

    def now(self) -> Cost:
        """All so far."""
        row = self._connection.execute(_COUNTED).fetchone()
        assert row is not None
        return Cost(*row)

    def of_seconds(self, seconds: float) -> Cost:
        """What is asked within a span of time. The database waits for it: nothing else would tell that it is over."""
        before = self.now()
        self._connection.execute("SELECT pg_sleep(%s)", (seconds,))
        return self.now() - before
