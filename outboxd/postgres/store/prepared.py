"""Prepared statements, executed by libpq's `PQexecPrepared` in one call.

A cursor of psycopg waits for an answer in Python, learns each statement's types anew, and passes through its pipelines
and transactions. Where a statement with a dozen parameters is executed hundreds of times a second and shows a row or
two, after pauses in which the processor's cache forgets all of it, that is more than half of what the statement costs
the daemon. Values go and come by psycopg's own adapters.

Behind a pooler, where a prepared statement may be unknown or taken, a cursor executes the same statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from outboxd.postgres.connections.sessions import Connection

PREPARED_MAX = 60
"""Of so many texts and types the server keeps the plans for a connection; those prepared first are forgotten first."""

PIECE_ROWS = 256
"""So many rows of an answer become Python objects at a time."""

_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s")


class PreparedStatements:
    """Executes statements in autocommit mode, with answers in the binary format. One thread's; it holds the last answer
    until `release`.
    """

    def __init__(self) -> None:
        """Nothing is prepared yet."""
        self._connection: Connection | None = None
        self._transformer: abc.Transformer | None = None
        self._prepared: dict[tuple[str, Sequence[int]], bytes] = {}
        self._count = 0

    def rows(self, connection: Connection, text: str, arguments: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute a statement with `%(name)s` parameters and return all of its rows. Raises psycopg.Error."""
        return [row for piece in self.pieces(connection, text, arguments) for row in piece]

    def pieces(
        self, connection: Connection, text: str, arguments: Mapping[str, object]
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Execute a statement as `rows` does; its rows come some hundred at a time, so that whoever makes something of
        them finds them in the processor's cache. Raises psycopg.Error, at the first piece.
        """
        if connection.prepare_threshold is None:
            with connection.cursor(binary=True) as cursor:
                cursor.execute(text, arguments)
                while rows := cursor.fetchmany(PIECE_ROWS):
                    yield rows
            return
        transformer, rows_count = self._executed(connection, text, arguments)
        for first in range(0, rows_count, PIECE_ROWS):
            yield transformer.load_rows(first, min(rows_count, first + PIECE_ROWS), tuple)

    def _executed(
        self, connection: Connection, text: str, arguments: Mapping[str, object]
    ) -> tuple[abc.Transformer, int]:
        """Return what holds the answer, and how many rows it has."""
        if connection is not self._connection:
            self._connection = connection
            self._prepared.clear()
            self._transformer = None
        if self._transformer is None:
            self._transformer = Transformer(connection)
        transformer, pgconn = self._transformer, connection.pgconn
        query, names, formats = _numbered(text)
        values = transformer.dump_sequence([arguments[name] for name in names], formats)
        types = transformer.types or ()
        name = self._prepared.get((text, types)) or self._prepare(pgconn, text, query, types)
        # A null is a parameter, too, which the protocol's type leaves out.
        result = pgconn.exec_prepared(name, values, transformer.formats, Format.BINARY)  # type: ignore[arg-type]
        if result.status != ExecStatus.TUPLES_OK:
            raise _error(pgconn, result)
        transformer.set_pgresult(result)
        return transformer, result.ntuples

    def release(self) -> None:
        """Let go of the answer; what is prepared stays."""
        self._transformer = None

    def _prepare(self, pgconn: PGconn, text: str, query: bytes, types: Sequence[int]) -> bytes:
        if len(self._prepared) >= PREPARED_MAX:
            oldest = self._prepared.pop(next(iter(self._prepared)))
            _checked(pgconn, pgconn.exec_(b"DEALLOCATE " + oldest))
        self._count += 1
        name = b"outboxd_%d" % self._count
        _checked(pgconn, pgconn.prepare(name, query, types))
        self._prepared[text, types] = name
        return name


@lru_cache(maxsize=2 * PREPARED_MAX)
def _numbered(text: str) -> tuple[bytes, list[str], list[PyFormat]]:
    """Return the text with its named parameters as the server numbers them, their names, and how each may go."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        return "%" if name is None else f"${names.setdefault(name, len(names) + 1)}"

    query = _PLACEHOLDER.sub(number, text).encode()
    return query, list(names), [PyFormat.AUTO] * len(names)


def _checked(pgconn: PGconn, result: PGresult) -> None:
    if result.status != ExecStatus.COMMAND_OK:
        raise _error(pgconn, result)


def _error(pgconn: PGconn, result: PGresult) -> psycopg.Error:
    error = psycopg.errors.error_from_result(result)
    if error.sqlstate is None and pgconn.status == ConnStatus.BAD:
        # Of a connection that was lost the result has a sentence and no state. What the server said before it closed
        # the connection is with the connection's message.
        return psycopg.OperationalError(pgconn.get_error_message())
    return error
