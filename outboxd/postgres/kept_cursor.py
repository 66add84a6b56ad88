"""A cursor that is kept from one statement to the next.

A cursor learns which Python type goes as which of PostgreSQL's, and back. Where a statement with a dozen parameters is
executed hundreds of times a second and shows a row or two, learning that anew each time is a fifth of its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from outboxd.postgres.sessions import Connection


class KeptCursor:
    """Executes statements with answers in the binary format. One thread's. It holds the last answer until `close`."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._cursor: psycopg.Cursor[tuple[Any, ...]] | None = None

    def rows(self, connection: Connection, text: str, arguments: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute a statement on this connection and return all of its rows. Raises psycopg.Error."""
        cursor = self._cursor
        if cursor is None or cursor.connection is not connection:
            cursor = self._cursor = connection.cursor(binary=True)
        return cursor.execute(text, arguments).fetchall()

    def close(self) -> None:
        """Let go of the answer, and of the cursor with it."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()
