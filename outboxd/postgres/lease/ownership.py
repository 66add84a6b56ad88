"""Ownership: what the owner of an outbox shows with its statements, and how these prove it.

The holder id, new for each acquisition of the lease, and the server's timeline, which PostgreSQL raises whenever a
standby is promoted or a backup is restored. After an asynchronous failover the lease may read as it did, though commits
are lost that this daemon has seen: rows that it sent may be gone, and their ids be given to others. So what was known
on one timeline says nothing about another, and the lease has to be acquired anew there.

The same holds for the table's storage, the file that its rows are in: `TRUNCATE … RESTART IDENTITY`, or another table
under the name, gives ids to new rows that rows in memory have.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import errors

from outboxd.postgres.connections.lock_limit import LIMITED
from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.schema.names import quoted_beside_parameters

TIMELINE = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
"""The timeline, where the server is no standby."""
IS_SAME_TIMELINE = f"(%(timeline)s::text IS NULL OR {TIMELINE} = %(timeline)s)"
STORAGE = "pg_relation_filenode(to_regclass(%(table)s::text))::bigint"
"""The number of the file that the table's rows are in: a new one at each truncation and rewrite."""
IS_SAME = f"({IS_SAME_TIMELINE} AND (%(storage)s::bigint IS NULL OR {STORAGE} = %(storage)s))"
HAS_MOVED = f"NOT CASE WHEN pg_is_in_recovery() THEN true ELSE coalesce({IS_SAME}, false) END"
"""A standby is told by other means."""


def is_owned_text(schema: str) -> str:
    """Return the condition that the lease is the owner's."""
    return (
        f"EXISTS (SELECT FROM {quoted_beside_parameters(schema)}.lease AS l WHERE l.outbox = %(outbox)s AND l.shard = 0"
        " AND l.holder = %(holder)s::uuid)"
    )


def locked_text(schema: str) -> str:
    """Return the query that gives a row where the lease is the owner's; nobody takes it before the statement ends."""
    return (
        f"SELECT l.token FROM {LIMITED}, {quoted_beside_parameters(schema)}.lease AS l WHERE l.outbox = %(outbox)s"
        " AND l.shard = 0 AND l.holder = %(holder)s::uuid FOR SHARE OF l"
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """One acquisition of the lease. `timeline` is None where the server does not tell it, `storage` where the table is
    not there, or has no file of its own.
    """

    holder: str
    timeline: str | None = None
    storage: int | None = None


NOBODY = Owner("00000000-0000-0000-0000-000000000000")
"""The owner before the first acquisition: it matches no lease."""


def timeline_of(connection: Connection) -> str | None:
    """Return the server's present timeline; None where the server refuses to tell it, as some that keep no WAL of
    their own do.
    """
    try:
        row = connection.execute(f"SELECT {TIMELINE}").fetchone()
    except (errors.FeatureNotSupported, errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
        return None
    return None if row is None else str(row[0])


def storage_of(connection: Connection, table: str) -> int | None:
    """Return the number of the file that the rows of the table, named as SQL has it, are in now."""
    row = connection.execute(f"SELECT {STORAGE}", {"table": table}).fetchone()
    return None if row is None else row[0]


def has_moved(connection: Connection, owner: Owner, table: str) -> bool:
    """Say whether this is another timeline, or another storage of the table, than when the owner acquired the lease."""
    if owner.timeline is not None and timeline_of(connection) != owner.timeline:
        return True
    return owner.storage is not None and storage_of(connection, table) != owner.storage
