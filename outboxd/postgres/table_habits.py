"""What people do to tables that does no harm at once: the server says nothing of it, and rows are lost or sent again.

Told by `outboxd check` only: the daemon relays such a table as well as it can be relayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, text

from outboxd.policy.findings import Finding, Weight
from outboxd.postgres.names import quoted

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


def habits_of(connection: Connection, schema: str, table: str, own_tables: Iterable[str]) -> Iterator[Finding]:
    """Return what is to be said of the outbox table, and of `own_tables` that are written beside it."""
    for name in (table, *own_tables):
        full = f"{quoted(schema)}.{quoted(name)}"
        if connection.scalar(text(_TELLS_NO_ROW), {"full": full}):
            yield Finding(
                "schema",
                Weight.MISCONFIGURED,
                f"{full} is published without a replica identity: PostgreSQL refuses each UPDATE and DELETE, so that "
                "rows would be sent and not marked",
                f"ALTER TABLE {full} REPLICA IDENTITY DEFAULT where it has a primary key, else FULL; or take it out of "
                "the publication",
            )
        if connection.scalar(text(_IS_UNLOGGED), {"full": full}):
            yield Finding(
                "schema",
                Weight.WARNING,
                f"{full} is unlogged: a crash of PostgreSQL empties it",
                f"ALTER TABLE {full} SET LOGGED",
            )
    yield from _ids(connection, f"{quoted(schema)}.{quoted(table)}")


def _ids(connection: Connection, full: str) -> Iterator[Finding]:
    if connection.scalar(text(_MAY_REPEAT), {"full": full}):
        yield Finding(
            "schema",
            Weight.WARNING,
            f"nothing keeps the ids of {full} from repeating: of two rows with one id only one is sent, and both are "
            "marked",
            f"ALTER TABLE {full} ADD PRIMARY KEY (id)",
        )
    if connection.scalar(text(_MAY_LACK_EVENT), {"full": full}):
        yield Finding(
            "schema",
            Weight.WARNING,
            f"event_id of {full} may be null: consumers know a record that comes twice by it",
            f"ALTER TABLE {full} ALTER event_id SET DEFAULT gen_random_uuid(), ALTER event_id SET NOT NULL",
        )
    for sequence, cached in connection.execute(text(_CACHED_IDS), {"full": full}):
        yield Finding(
            "schema",
            Weight.WARNING,
            f"each session draws {cached} ids of {full} at once: rows are found late and out of the order of their "
            "commits",
            f"ALTER SEQUENCE {sequence} CACHE 1",
        )
