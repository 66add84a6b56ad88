"""The statements that the fetch and the settlement prepare, on a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from outboxd.postgres.store.prepared import PREPARED_MAX, PreparedStatements
from tests.support.children import wait_for
from tests.support.postgres_fixtures import Database

ADDED = "SELECT %(left)s::bigint + %(right)s::bigint, %(payload)s::bytea, 'a%%', %(left)s::bigint"


def add(statements: PreparedStatements, connection: psycopg.Connection[tuple[Any, ...]], right: int | None) -> object:
    return statements.rows(connection, ADDED, {"left": 2**40, "right": right, "payload": b"\x00x"})


def prepared_count(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    row = connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def test_they_take_other_values_types_and_connections(database: Database) -> None:
    statements = PreparedStatements()
    with database.connect() as connection:
        assert add(statements, connection, 1) == [(2**40 + 1, b"\x00x", "a%", 2**40)]
        assert add(statements, connection, None) == [(None, b"\x00x", "a%", 2**40)]
        assert add(statements, connection, 2**50) == [(2**40 + 2**50, b"\x00x", "a%", 2**40)]
        assert prepared_count(connection) == 3, "one for each of the types"
    with database.connect() as other:
        assert add(statements, other, 3) == [(2**40 + 3, b"\x00x", "a%", 2**40)]
        statements.release()
        statements.release()
        assert add(statements, other, 4) == [(2**40 + 4, b"\x00x", "a%", 2**40)]
        assert prepared_count(other) == 1


def test_after_an_error_they_go_on_with_the_next_connection(database: Database) -> None:
    statements = PreparedStatements()
    with database.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            statements.rows(connection, "SELECT 1 / %(zero)s::int", {"zero": 0})
        with pytest.raises(psycopg.errors.UndefinedTable):
            statements.rows(connection, "SELECT * FROM nowhere WHERE 1 = %(one)s", {"one": 1})
        assert add(statements, connection, 1) == [(2**40 + 1, b"\x00x", "a%", 2**40)]
        connection.close()
        with pytest.raises(psycopg.OperationalError):
            add(statements, connection, 1)
    with database.connect() as other:
        assert add(statements, other, 1) == [(2**40 + 1, b"\x00x", "a%", 2**40)]


def test_a_connection_that_the_server_ended_is_told_as_lost(database: Database) -> None:
    statements = PreparedStatements()
    with database.connect() as connection, database.connect() as other:
        add(statements, connection, 1)
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        gone = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        pid = connection.info.backend_pid
        wait_for(lambda: not other.execute(gone, (pid,)).fetchall(), timeout_seconds=10, what="the backend has ended")
        with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
            add(statements, connection, 1)


def test_the_server_keeps_no_more_of_them_than_the_bound(database: Database) -> None:
    statements = PreparedStatements()
    with database.connect() as connection:
        for number in range(PREPARED_MAX + 20):
            assert statements.rows(connection, f"SELECT {number} + %(one)s::int", {"one": 1}) == [(number + 1,)]
        assert prepared_count(connection) == PREPARED_MAX


def test_behind_a_pooler_nothing_is_prepared(database: Database) -> None:
    statements = PreparedStatements()
    with database.connect() as connection:
        connection.prepare_threshold = None
        for _ in range(10):
            assert add(statements, connection, 1) == [(2**40 + 1, b"\x00x", "a%", 2**40)]
        assert prepared_count(connection) == 0
