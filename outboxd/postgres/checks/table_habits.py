"""What people do to tables that does no harm at once: the server says nothing of it, and rows are lost or sent again.

Told by `outboxd check` only: the daemon relays such a table as well as it can be relayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.schema.names import quoted

# Of a publication's tables the server refuses each UPDATE and DELETE that tells the subscribers of no row.
_TELLS_NO_ROW = """SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     JOIN pg_publication_tables AS t ON t.schemaname = n.nspname AND t.tablename = c.relname
     JOIN pg_publication AS p ON p.pubname = t.pubname AND (p.pubupdate OR p.pubdelete)
    WHERE c.oid = to_regclass(:full) AND c.relreplident <> 'f'
      AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid
                         AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END))"""
_IS_UNLOGGED = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(:full) AND relpersistence = 'u')"
_MAY_REPEAT = """SELECT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = to_regclass(:full) AND c.relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid
                                                                    AND a.attnum = i.indkey[0]
                     WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                       AND i.indnkeyatts = 1 AND a.attname = 'id'))"""
_MAY_LACK_EVENT = """SELECT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.oid = to_regclass(:full) AND c.relkind IN ('r', 'p') AND a.attname = 'event_id' AND NOT a.attnotnull)"""
_CACHED_IDS = """SELECT s.seqrelid::regclass::text, s.seqcache FROM pg_sequence AS s WHERE s.seqcache > 1 AND EXISTS (
    SELECT FROM pg_attribute AS a LEFT JOIN pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
      JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refobjid = a.attrelid
                             AND d.refobjsubid = a.attnum
                          OR d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refobjid = s.seqrelid
     WHERE a.attrelid = to_regclass(:full) AND a.attname = 'id')"""
# The name stands there as it was written by `migrate`: quoted where it had to be, or where the server quotes all.
_LOOKS_ELSEWHERE = """SELECT EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     CROSS JOIN unnest(p.proconfig) AS setting
    WHERE n.nspname = :schema AND p.proname IN ('wake_relay', 'guard_dead_letter', 'replay_where', 'pause')
      AND starts_with(setting, 'search_path=') AND NOT starts_with(setting, 'search_path=' || n.nspname || ',')
      AND NOT starts_with(setting, 'search_path="' || replace(n.nspname, '"', '""') || '",'))"""


class Habit(NamedTuple):
    """A question about a table, and what is said where the answer is yes; `{full}` is the table's name."""

    sql: str
    weight: Weight
    problem: str
    remedy: str


_OF_ANY: Final = (
    Habit(
        _TELLS_NO_ROW,
        Weight.MISCONFIGURED,
        "{full} is published without a replica identity: PostgreSQL refuses each UPDATE and DELETE, so that rows would "
        "be sent and not marked",
        "ALTER TABLE {full} REPLICA IDENTITY DEFAULT where it has a primary key, else FULL; or take it out of the "
        "publication",
    ),
    Habit(
        _IS_UNLOGGED,
        Weight.WARNING,
        "{full} is unlogged: a crash of PostgreSQL empties it",
        "ALTER TABLE {full} SET LOGGED",
    ),
)
_OF_THE_OUTBOX: Final = (
    Habit(
        _MAY_REPEAT,
        Weight.WARNING,
        "nothing keeps the ids of {full} from repeating: of two rows with one id only one is sent, and both are marked",
        "ALTER TABLE {full} ADD PRIMARY KEY (id)",
    ),
    Habit(
        _MAY_LACK_EVENT,
        Weight.WARNING,
        "event_id of {full} may be null: consumers know a record that comes twice by it",
        "ALTER TABLE {full} ALTER event_id SET DEFAULT gen_random_uuid(), ALTER event_id SET NOT NULL",
    ),
)


def habits_of(connection: Connection, schema: str, table: str, own_tables: Iterable[str]) -> Iterator[Finding]:
    """Return what is to be said of the outbox table, and of `own_tables` that are written beside it."""
    if connection.scalar(text(_LOOKS_ELSEWHERE), {"schema": schema}):
        yield _functions_elsewhere(schema)
    for name in (table, *own_tables):
        yield from _found(connection, f"{quoted(schema)}.{quoted(name)}", _OF_ANY)
    outbox = f"{quoted(schema)}.{quoted(table)}"
    yield from _found(connection, outbox, _OF_THE_OUTBOX)
    for sequence, cached in connection.execute(text(_CACHED_IDS), {"full": outbox}):
        yield Finding(
            "schema",
            Weight.WARNING,
            f"each session draws {cached} ids of {outbox} at once: rows are found late and out of the order of their "
            "commits",
            f"ALTER SEQUENCE {sequence} CACHE 1",
        )


def _functions_elsewhere(schema: str) -> Finding:
    """Each function has its schema's name in its search_path, where ALTER SCHEMA … RENAME leaves the old one."""
    name = schema.replace("'", "''")
    return Finding(
        "schema",
        Weight.MISCONFIGURED,
        f"the functions of the schema {schema!r} look for its tables in another, as after a rename: each INSERT into "
        "the outbox fails, and so do replays and pauses",
        "rename it back, or run in psql: SELECT format('ALTER FUNCTION %s SET search_path = %I, pg_temp', "
        "p.oid::regprocedure, nspname) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace "
        f"WHERE nspname = '{name}' AND proconfig IS NOT NULL \\gexec",
    )


def _found(connection: Connection, full: str, habits: Sequence[Habit]) -> Iterator[Finding]:
    for habit in habits:
        if connection.scalar(text(habit.sql), {"full": full}):
            yield Finding("schema", habit.weight, habit.problem.format(full=full), habit.remedy.format(full=full))
