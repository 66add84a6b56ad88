"""The cursor that the fetch keeps, on a real PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from outboxd.postgres.kept_cursor import KeptCursor
from tests.support.postgres_fixtures import Database

ADDED = "SELECT %(left)s::bigint + %(right)s::bigint, %(payload)s::bytea"


def add(cursor: KeptCursor, connection: psycopg.Connection, right: int | None) -> object:
    return cursor.rows(connection, ADDED, {"left": 2**40, "right": right, "payload": b"\x00x"})


def test_a_kept_cursor_takes_other_values_types_and_connections(database: Database) -> None:
    cursor = KeptCursor()
    with database.connect() as connection:
        assert add(cursor, connection, 1) == [(2**40 + 1, b"\x00x")]
        assert add(cursor, connection, None) == [(None, b"\x00x")]
        assert add(cursor, connection, 2**50) == [(2**40 + 2**50, b"\x00x")]
    with database.connect() as other:
        assert add(cursor, other, 3) == [(2**40 + 3, b"\x00x")]
        cursor.close()
        cursor.close()
        assert add(cursor, other, 4) == [(2**40 + 4, b"\x00x")]


def test_after_an_error_the_cursor_goes_on_with_the_next_connection(database: Database) -> None:
    cursor = KeptCursor()
    with database.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            cursor.rows(connection, "SELECT 1 / %(zero)s::int", {"zero": 0})
        connection.close()
        with pytest.raises(psycopg.Error):
            add(cursor, connection, 1)
    with database.connect() as other:
        assert add(cursor, other, 1) == [(2**40 + 1, b"\x00x")]
