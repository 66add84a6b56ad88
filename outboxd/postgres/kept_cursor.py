"""A cursor that is kept from one statement to the next.

A cursor learns which Python type goes as which of PostgreSQL's, and back. Where a statement with a dozen parameters is
executed hundreds of times a second and shows a row or two, learning that anew each time is a fifth of its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from outboxd.postgres.sessions import Connection

KEPT_ROWS_MAX = 100
"""A cursor holds its last answer; one with more rows than these goes, so that the memory comes back."""


class KeptCursor:
    """Executes statements with answers in the binary format. One thread's."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._cursor: psycopg.Cursor[tuple[Any, ...]] | None = None

    def rows(self, connection: Connection, text: str, arguments: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute a statement on this connection and return all of its rows. Raises psycopg.Error."""
        cursor = self._cursor
        if cursor is None or cursor.connection is not connection:
            cursor = self._cursor = connection.cursor(binary=True)
        rows = cursor.execute(text, arguments).fetchall()
        if len(rows) > KEPT_ROWS_MAX:
            cursor.close()
            self._cursor = None
        return rows
