"""The statements of the lease. `table` is its name, qualified and quoted beside parameters. Each limits its own waits
for locks.
"""

from __future__ import annotations

from outboxd.postgres.connections.lock_limit import LIMITED

_OURS = "WHERE outbox = %(outbox)s AND shard = 0 AND token = %(token)s AND holder = %(holder)s::uuid"
_SEEN = (
    "(l.holder, l.token, l.expires_at)"
    " = (%(seen_holder)s::uuid, %(seen_token)s::bigint, %(seen_expires_at)s::timestamptz)"
)
"""The lease `l` is still what was seen, which is over."""
OTHER = "r.outbox <> %(outbox)s AND r.relayed_table = %(relayed_table)s AND r.expires_at > clock_timestamp()"
"""The lease `r` of an outbox of another name on the same table: both would publish each of its rows."""


def acquire_text(table: str) -> str:
    """Return the statement that takes the lease where it is still as it was seen, or nobody ever had it, and the
    table is no other outbox's; it returns no row where it does not.
    """
    return (
        f"WITH former AS (SELECT undrained FROM {table} WHERE outbox = %(outbox)s AND shard = 0)"
        f" INSERT INTO {table} AS l (outbox, shard, holder, daemon, token, acquired_at, expires_at,"
        " renewed_at, listening, deleted_through, undrained, relayed_table)"
        " SELECT %(outbox)s, 0, %(holder)s::uuid, %(daemon)s, 1, clock_timestamp(),"
        " clock_timestamp() + make_interval(secs => %(ttl)s), clock_timestamp(), %(listening)s,"
        " %(deleted_through)s::bigint,"
        f" NOT %(exactly_once)s, %(relayed_table)s FROM {LIMITED}"
        f" WHERE NOT EXISTS (SELECT FROM {table} AS r WHERE {OTHER})"
        " ON CONFLICT (outbox, shard) DO UPDATE SET holder = excluded.holder, daemon = excluded.daemon,"
        " token = l.token + 1, acquired_at = clock_timestamp(),"
        " expires_at = clock_timestamp() + make_interval(secs => %(ttl)s), renewed_at = clock_timestamp(),"
        " listening = excluded.listening,"
        # Null once, null for ever: what was deleted does not come back when rows are marked again.
        " deleted_through = l.deleted_through + excluded.deleted_through, undrained = excluded.undrained,"
        " relayed_table = excluded.relayed_table"
        f" WHERE {_SEEN} AND NOT (%(exactly_once)s AND l.undrained)"
        " RETURNING token, coalesce((SELECT undrained FROM former), false), current_database()"
    )


def renew_text(table: str) -> str:
    """Return the statement that renews the lease; it returns no row where the lease is not ours any more, or where an
    outbox of another name acquired the same table just before us, in a statement that did not see ours.
    """
    before_us = "(r.acquired_at, r.outbox) < (l.acquired_at, l.outbox)"
    return (
        f"UPDATE {table} AS l SET expires_at = clock_timestamp() + make_interval(secs => %(ttl)s),"
        f" renewed_at = clock_timestamp() FROM {LIMITED} {_OURS}"
        f" AND NOT EXISTS (SELECT FROM {table} AS r WHERE {OTHER} AND {before_us})"
        " RETURNING token"
    )


def release_text(table: str) -> str:
    """Return the statement that lets the lease end now, where it is still ours."""
    return (
        f"UPDATE {table} SET expires_at = clock_timestamp(), renewed_at = clock_timestamp(), listening = false,"
        f" undrained = undrained AND NOT %(drained)s FROM {LIMITED} {_OURS}"
    )


def end_stale_text(table: str) -> str:
    """Return the statement that ends the session which locks a lease that is over, by the clock or as it was seen: a
    settlement, of an owner that is gone or frozen, which a slow disk or a lock of others keeps from its end. What it
    wrote is undone with it.
    """
    return (
        f"SELECT pg_terminate_backend(k.pid) FROM {table} AS l JOIN pg_locks AS k ON k.transactionid = l.xmax"
        f" WHERE l.outbox = %(outbox)s AND l.shard = 0 AND (l.expires_at <= clock_timestamp() OR {_SEEN})"
        " AND k.locktype = 'transactionid' AND k.granted AND k.pid <> pg_backend_pid()"
    )
