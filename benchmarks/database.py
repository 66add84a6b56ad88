"""The database of a run: rows put in, progress watched, statements and WAL counted."""

from __future__ import annotations

import time
from typing import NamedTuple

import psycopg

from benchmarks.stand import SCHEMA
from outboxd.bench.bare import PAYLOAD_BYTES

Connection = psycopg.Connection[tuple[object, ...]]


class Apart(NamedTuple):
    """Of each ten rows so many have one key, or none, instead of the others' keys."""

    of_ten: int = 0
    key: str | None = None


NONE_APART = Apart()

DRAIN_SECONDS_MAX = 600.0
FIRST = -(2**63)
"""Below every id."""
INSERT_ROWS_MAX = 500_000
_POLL_SECONDS = 0.01


def number(connection: Connection, query: str, *parameters: object) -> int:
    """The one number that a query answers."""
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None, query
    return int(str(row[0]))


def empty(connection: Connection) -> None:
    """Remove all rows, dead letters and retries of earlier runs, and what the lease remembers of them.

    The transactions' progress stays: without it the next daemon would read all of it anew.
    """
    tables = ", ".join(f"{SCHEMA}.{name}" for name in ("outbox", "dead_letter", "retry"))
    connection.execute(f"TRUNCATE {tables}")
    connection.execute(f"UPDATE {SCHEMA}.lease SET expires_at = now(), undrained = false")


def insert_rows(
    connection: Connection,
    topic: str,
    rows: int,
    keys: int,
    *,
    payload_bytes: int = PAYLOAD_BYTES,
    key_prefix: str = "key",
    apart: Apart = NONE_APART,
) -> int:
    """Insert rows over so many keys, but for those apart, up to half a million in one transaction; return the last
    id.
    """
    found = 0
    for first in range(1, rows + 1, INSERT_ROWS_MAX):
        last = min(rows, first + INSERT_ROWS_MAX - 1)
        found = number(
            connection,
            f"WITH new AS (INSERT INTO {SCHEMA}.outbox (topic, key, payload)"
            " SELECT %s, CASE WHEN i %% 10 < %s THEN %s ELSE %s || '-' || (i %% %s) END,"
            " convert_to(rpad(i || ' ', %s, i || ' '), 'UTF8')"
            " FROM generate_series(%s::int, %s::int) AS i RETURNING id) SELECT max(id) FROM new",
            topic, apart.of_ten, apart.key, key_prefix, keys, payload_bytes, first, last,
        )  # fmt: skip
    return found


def wait_until_settled(
    connection: Connection, last_id: int, *, above_id: int = FIRST, seconds_max: float = DRAIN_SECONDS_MAX
) -> None:
    """Wait until no row between these ids, the last included, is pending.

    Each look begins where the one before it found the lowest pending row, so that the dead rows behind the head are
    not walked by the one who measures. TimeoutError after `seconds_max`.
    """
    deadline = time.monotonic() + seconds_max
    while (row := _lowest_pending(connection, above_id, last_id)) is not None:
        above_id = row - 1
        if time.monotonic() > deadline:
            raise TimeoutError(f"row {row} is still pending after {seconds_max:g} s")
        time.sleep(_POLL_SECONDS)


def pending_rows(connection: Connection, above_id: int = FIRST) -> int:
    """How many rows above this id are not settled."""
    return number(connection, f"SELECT count(*) FROM {SCHEMA}.outbox WHERE published_at IS NULL AND id > %s", above_id)


def last_id(connection: Connection) -> int:
    """The last id that was given, whether its row is still there or not."""
    return number(connection, f"SELECT last_value FROM {SCHEMA}.outbox_id_seq")


def _lowest_pending(connection: Connection, above_id: int, last_id: int) -> int | None:
    row = connection.execute(
        f"SELECT id FROM {SCHEMA}.outbox WHERE id > %s AND id <= %s AND published_at IS NULL ORDER BY id LIMIT 1",
        (above_id, last_id),
    ).fetchone()
    return None if row is None else int(str(row[0]))


def wal_bytes(connection: Connection) -> int:
    """Bytes of WAL written so far."""
    return number(connection, "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")


def statements(connection: Connection) -> int:
    """Statements run so far but for the stand's own: by pg_stat_statements, or where that is missing, transactions."""
    if number(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'"):
        return number(
            connection,
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements"
            " WHERE userid <> current_user::regrole AND toplevel",
        )
    return number(connection, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
