"""Why the server refused a connection, where only its words came of it.

libpq keeps the SQLSTATE of a refused connection to itself, and the words are in the server's language
(`lc_messages`). So the connection is tried once more, with a trace, in memory, of what the server says. The same words
mean the same thing: each refusal is asked for once in the life of the process.
"""

from __future__ import annotations

import os
import re
import selectors
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

ASK_SECONDS_MAX: Final = 5.0
#: The library keeps a little memory of each trace. What is refused in more ways than that stays in words.
ASKED_MAX: Final = 32

# Two spaces follow the severity, which is translated too; the library's own words have none of these.
_SERVERS_WORDS: Final = ":  "
_REFUSAL: Final = re.compile(rb'^B\t\d+\tErrorResponse\t[^\n]*? C "([0-9A-Z]{5})"', re.MULTILINE)
_WAITS: Final = {pq.PollingStatus.READING: selectors.EVENT_READ, pq.PollingStatus.WRITING: selectors.EVENT_WRITE}
_asked: dict[bytes, str] = {}


def refusal_state(error: psycopg.Error) -> str:
    """Return the SQLSTATE with which the server refuses this connection; "" where it does not, or does not tell."""
    if error.sqlstate or error.pgconn is None or _SERVERS_WORDS not in str(error):
        return ""
    words = error.pgconn.error_message
    if words not in _asked and len(_asked) < ASKED_MAX:
        _asked[words] = _ask(error.pgconn)
    return _asked.get(words, "")


def _ask(refused: pq.abc.PGconn) -> str:
    """Connect in the same way, and be refused by the same words, or learn nothing."""
    try:
        given = {each.keyword.decode(): each.val.decode() for each in refused.info if each.val is not None}
        with _traced(make_conninfo("", **given)) as (connection, trace):
            _wait_for_end(connection)
            connection.untrace()
            states = _REFUSAL.findall(os.pread(trace, os.fstat(trace).st_size, 0))
            return states[-1].decode() if states and connection.error_message == refused.error_message else ""
    except (psycopg.Error, OSError, ValueError):
        return ""


@contextmanager
def _traced(conninfo: str) -> Iterator[tuple[pq.abc.PGconn, int]]:
    """A connection that begins, and the file, in memory only, of what is said on it: a password may be."""
    trace = os.memfd_create("outboxd-refusal")
    try:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace)
            connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            yield connection, trace
        finally:
            connection.finish()
    finally:
        os.close(trace)


def _wait_for_end(connection: pq.abc.PGconn) -> None:
    """Connect, or be refused, or wait for `ASK_SECONDS_MAX`."""
    ends_at = time.monotonic() + ASK_SECONDS_MAX
    while (event := _WAITS.get(pq.PollingStatus(connection.connect_poll()))) and time.monotonic() < ends_at:
        with closing(selectors.DefaultSelector()) as selector:
            selector.register(connection.socket, event)
            selector.select(ends_at - time.monotonic())
