"""Lock holders: which session has the lock that a statement of ours waited for in vain, in words for the log.

It is looked for once the wait is over, so it may be another by then, or gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psycopg

from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.schema.names import quoted, quoted_beside_parameters
from outboxd.postgres.store.table_parts import TABLES

_TOLD = (
    "SELECT l.pid, a.application_name, a.state, date_part('epoch', clock_timestamp() - a.xact_start)::bigint"
    " FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid"
)
_OF_TABLE = f"l.locktype = 'relation' AND l.relation IN {TABLES}"


def holder_of(connection: Connection, schema: str, table: str, record_ids: Sequence[int]) -> str | None:
    """Return who holds the table, or else one of these rows, against writers; None where nobody is found."""
    qualified = f"{quoted_beside_parameters(schema)}.{quoted_beside_parameters(table)}"
    arguments = {"table": f"{quoted(schema)}.{quoted(table)}", "ids": list(record_ids)}
    of_table = (
        f"{_TOLD} WHERE {_OF_TABLE} AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()"
        " AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') LIMIT 1"
    )
    # Who locked a row stands in the row itself, as a transaction's id, or as that of a group of transactions: those are
    # counted apart, so a number alone does not tell that this transaction has to do with the table.
    of_row = (
        f"{_TOLD} JOIN {qualified} AS o ON o.xmax = l.transactionid WHERE l.locktype = 'transactionid' AND l.granted"
        " AND o.id = ANY(%(ids)s::bigint[]) AND EXISTS (SELECT FROM pg_locks AS r WHERE r.locktype = 'relation'"
        f" AND r.relation IN {TABLES} AND r.virtualtransaction = l.virtualtransaction) LIMIT 1"
    )
    with suppress(psycopg.Error):
        found = connection.execute(of_table, arguments).fetchone()
        if found is None and record_ids:
            found = connection.execute(of_row, arguments).fetchone()
        return None if found is None else _in_words(*found)
    return None


def holder_of_advisory(connection: Connection, key: int) -> str | None:
    """Return who has the advisory lock `key` of this database; None where nobody is found, who may just have ended."""
    found = connection.execute(
        f"{_TOLD} WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND l.classid::bigint = %(key)s::bigint >> 32 AND l.objid::bigint = %(key)s::bigint & 4294967295 LIMIT 1",
        {"key": key},
    ).fetchone()
    return None if found is None else _in_words(*found)


def _in_words(pid: int | None, application: str | None, state: str | None, seconds: int | None) -> str:
    if pid is None:
        return "a prepared transaction holds it (pg_prepared_xacts)"
    known = [application and f"application_name {application}", state, seconds is not None and f"{seconds} s old"]
    shown = ", ".join(each for each in known if each)
    return f"the transaction of process {pid} holds it{f' ({shown})' if shown else ''}"
