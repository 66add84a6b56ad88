"""What a standby sees of the lease, without a lock on its row."""

from __future__ import annotations

from psycopg import errors

from outboxd.policy.lease_watch import LeaseSight, LeaseVersion
from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.schema.finite import finite


def look_text(table: str) -> str:
    """Return the statement that looks at the lease; it gives one row, of nulls where there is no lease yet."""
    return (
        "SELECT current_setting('transaction_read_only') = 'on', l.holder::text, l.token, l.expires_at::text,"
        f" date_part('epoch', {finite('l.expires_at')} - clock_timestamp()),"
        f" CASE WHEN l.renewed_at IS NOT NULL"
        f" THEN date_part('epoch', {finite('l.expires_at')} - {finite('l.renewed_at')}) END"
        f" FROM (VALUES (1)) AS one(row) LEFT JOIN {table} AS l ON l.outbox = %(outbox)s AND l.shard = 0"
    )


def look(connection: Connection, table: str, outbox: str) -> LeaseSight | None:
    """Return what is seen of the lease now; None where nobody ever had it.

    Raises:
        psycopg.errors.ReadOnlySqlTransaction: it could not be taken there, so what is seen is not the lease itself.
    """
    row = connection.execute(look_text(table), {"outbox": outbox}).fetchone()
    if row is None or row[0]:
        raise errors.ReadOnlySqlTransaction("the lease cannot be taken in a read-only transaction")
    _, holder, token, expires_at, remaining_seconds, duration_seconds = row
    if holder is None:
        return None
    return LeaseSight(LeaseVersion(holder, token, expires_at), remaining_seconds, duration_seconds)


def as_seen(version: LeaseVersion | None) -> dict[str, object]:
    """Return the arguments by which a statement knows the lease that was seen; nothing matches where there was none."""
    holder, token, expires_at = (None, None, None) if version is None else version
    return {"seen_holder": holder, "seen_token": token, "seen_expires_at": expires_at}
