"""What the daemon needs of the database, looked at all at once: the server, the schema, the table, every grant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql

from outboxd.errors import AccessDeniedError, ConfigError, OutboxdError, SchemaError
from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.checks.grants import OWN_TABLES, ROLES_FILE, hidden_rows, missing_grants, rights_of
from outboxd.postgres.checks.other_outboxes import waiting_replays
from outboxd.postgres.checks.pooling import pooling_of
from outboxd.postgres.checks.sql_interface import missing_objects
from outboxd.postgres.checks.table_habits import habits_of
from outboxd.postgres.connections.failures import STANDBY_REMEDY, explained
from outboxd.postgres.lease.lease_obstacles import doubt_of, other_outbox_of, same_identity_of
from outboxd.postgres.schema.lineage import LINEAGE
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.schema.revisions import check_schema, required_revision
from outboxd.postgres.schema.sql_text import in_schema
from outboxd.postgres.schema.tables import table as table_of

SERVER_VERSION_MIN = 140000
PENDING_ROWS_READ_MAX = 100_000

#: What the daemon only writes there, of whichever type.
_WRITTEN_COLUMNS = frozenset({"published_partition", "published_offset"})
# A type is as good as the needed one where PostgreSQL turns it into that by itself, also in a union; a domain is its
# base.
_COLUMNS = """SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS given, n.type AS wanted,
         base.oid <> to_regtype(n.type) AND base.typtype <> 'd'
         -- Read as text, and assigned to jsonb where the row dies.
         AND NOT (n.name = 'headers' AND base.typname = 'json')
         AND NOT EXISTS (SELECT FROM pg_cast AS c
                          WHERE c.castsource = base.oid AND c.casttarget = to_regtype(n.type) AND c.castcontext = 'i')
             AS is_other
    FROM pg_attribute AS a
    JOIN pg_type AS given ON given.oid = a.atttypid
    JOIN pg_type AS base ON base.oid = CASE given.typtype WHEN 'd' THEN given.typbasetype ELSE given.oid END
    LEFT JOIN unnest(CAST(:names AS text[]), CAST(:types AS text[])) AS n(name, type) ON n.name = a.attname
   WHERE a.attrelid = to_regclass(:full) AND a.attnum > 0 AND NOT a.attisdropped
   ORDER BY a.attnum"""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found, the topics of the pending rows that were read, with how many of them, the database's name, and
    with exactly-once delivery the number of the last transaction that was settled (0: none) and the lineage of the
    progress records.
    """

    findings: Sequence[Finding]
    pending_topics: Mapping[str, int]
    database: str
    settled_transaction: int = 0
    lineage: str = ""


def inspect(
    engine: Engine, schema: str, table: str, outbox: str, *, exactly_once: bool = False, listens: bool = False
) -> Inspection:
    """Look at everything; what cannot be looked at because of an earlier problem is left out.

    `exactly_once`: that is how the daemon is to deliver; `listens`: it is to wake up by notifications.
    """
    findings: list[Finding] = []
    topics: dict[str, int] = {}
    database, settled, lineage = "", 0, ""
    try:
        with explained(), engine.connect() as connection:
            database = str(connection.scalar(text("SELECT current_database()")))
            findings.extend(_server(connection))
            if listens:
                findings.extend(_notifications(connection))
            may_look = list(_schema(connection, schema))
            findings.extend(may_look)
            if not any(finding.weight.is_problem for finding in may_look):
                rights = list(rights_of(connection, schema, table))
                missing = list(missing_grants(rights))
                findings.extend(missing)
                findings.extend(missing_objects(connection, schema))
                findings.extend(_table(connection, schema, table))
                findings.extend(habits_of(connection, schema, table, OWN_TABLES))
                if not missing:
                    findings.extend(hidden_rows(rights))
                    findings.extend(_other_outbox(connection, schema, table, outbox))
                    findings.extend(waiting_replays(connection, schema, outbox))
                if not missing and exactly_once:
                    findings.extend(_doubt(connection, schema, outbox))
                    settled = _settled_transaction(connection, schema, outbox)
                if not any(finding.weight.is_problem for finding in findings):
                    findings.append(Finding("grants", Weight.FINE, "the role may do all that the daemon does"))
                    topics = _pending_topics(connection, schema, table)
                    lineage = _lineage(connection, schema, table) if exactly_once else ""
            findings.extend(pooling_of(engine))
    except OutboxdError as error:
        findings.append(Finding("database", weight_of(error), str(error)))
    return Inspection(findings, topics, database, settled, lineage)


def weight_of(error: OutboxdError) -> Weight:
    """How bad an error of ours is as a finding."""
    if isinstance(error, ConfigError):
        return Weight.MISCONFIGURED
    return Weight.FORBIDDEN if isinstance(error, AccessDeniedError) else Weight.UNAVAILABLE


def _notifications(connection: Connection) -> Iterator[Finding]:
    if connection.scalar(text("SHOW max_prepared_transactions")) != "0":
        yield Finding(
            "database",
            Weight.WARNING,
            "relay.listen is on, so that each insert notifies, and max_prepared_transactions is above 0: PostgreSQL "
            "prepares no transaction that notified",
            "set relay.listen to false where an application that writes to the outbox prepares its transactions",
        )


def _server(connection: Connection) -> Iterator[Finding]:
    number, version, database, role, is_standby, read_only = connection.execute(
        text(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_database(),"
            " current_user, pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
        )
    ).one()
    yield Finding("database", Weight.FINE, f"PostgreSQL {version}, database {database!r}, as role {role!r}")
    if number < SERVER_VERSION_MIN:
        yield Finding("database", Weight.MISCONFIGURED, f"PostgreSQL {version} is too old", "use version 14 or newer")
    if is_standby or read_only:
        what = "a read-only standby" if is_standby else "read-only for this role"
        yield Finding(
            "database",
            Weight.UNAVAILABLE,
            f"the server is {what}",
            STANDBY_REMEDY,
        )


def _schema(connection: Connection, schema: str) -> Iterator[Finding]:
    usable = connection.execute(
        text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema"), {"schema": schema}
    ).scalar_one_or_none()
    if usable is False:
        yield Finding(
            "grants",
            Weight.FORBIDDEN,
            f"the role may not use the schema {schema!r}",
            f"GRANT USAGE ON SCHEMA {quoted(schema)}, or grant the relay's role of {ROLES_FILE}",
        )
        return
    try:
        check_schema(connection, schema)
    except SchemaError as error:
        yield Finding("schema", Weight.MISCONFIGURED, str(error))
    else:
        yield Finding("schema", Weight.FINE, f"schema {schema!r} is at revision {required_revision()}")


def check_table(connection: Connection, schema: str, table: str) -> None:
    """Refuse a table that is not there, lacks a column or has one that cannot be read. Raises SchemaError."""
    for finding in _table(connection, schema, table):
        raise SchemaError(f"{finding.message}: {finding.remedy}")


def _table(connection: Connection, schema: str, table: str) -> Iterator[Finding]:
    full = f"{quoted(schema)}.{quoted(table)}"
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
    needed = {column.name: column.type.compile(dialect) for column in table_of(schema, "outbox").columns}
    read = {name: kind.lower() for name, kind in needed.items() if name not in _WRITTEN_COLUMNS}
    columns = connection.execute(
        text(_COLUMNS), {"full": full, "names": list(read), "types": list(read.values())}
    ).all()
    found = {column.name for column in columns}
    missing = [name for name in needed if name not in found]
    others = [column for column in columns if column.is_other]
    if not found:
        yield Finding("schema", Weight.MISCONFIGURED, f"there is no table {full}", "look at outbox.table")
    elif missing:
        yield Finding(
            "schema",
            Weight.MISCONFIGURED,
            f"the table {full} lacks {', '.join(missing)}",
            "add the columns as `outboxd migrate --sql` shows them, or look at outbox.table",
        )
    elif others:
        listed = ", ".join(f"{each.name} is {each.given} instead of {each.wanted}" for each in others)
        yield Finding(
            "schema",
            Weight.MISCONFIGURED,
            f"the table {full} has columns of other types: {listed}",
            "give them these types, or look at outbox.table",
        )


def _other_outbox(connection: Connection, schema: str, table: str, outbox: str) -> Iterator[Finding]:
    driver: Any = connection.connection.driver_connection
    other = other_outbox_of(driver, schema, outbox, table)
    if other is not None:
        yield Finding("database", Weight.MISCONFIGURED, other.problem, other.remedy)


def _doubt(connection: Connection, schema: str, outbox: str) -> Iterator[Finding]:
    driver: Any = connection.connection.driver_connection
    doubt = doubt_of(driver, schema, outbox)
    if doubt is not None:
        yield Finding("database", Weight.MISCONFIGURED, doubt)
    other = same_identity_of(driver, schema, outbox)
    if other is not None:
        yield Finding("database", Weight.MISCONFIGURED, other.problem, other.remedy)


def _settled_transaction(connection: Connection, schema: str, outbox: str) -> int:
    question = in_schema("SELECT settled_transaction FROM @schema@.progress WHERE outbox = :name AND shard = 0", schema)
    return connection.scalar(question, {"name": outbox}) or 0


def _lineage(connection: Connection, schema: str, table: str) -> str:
    driver: Any = connection.connection.driver_connection
    row = driver.execute(f"SELECT {LINEAGE}", {"table": f"{quoted(schema)}.{quoted(table)}"}).fetchone()
    return str(row[0])


def _pending_topics(connection: Connection, schema: str, table: str) -> dict[str, int]:
    rows = connection.execute(
        in_schema(
            "SELECT topic, count(*) AS rows FROM (SELECT coalesce(topic::text, '') AS topic FROM @outbox@"
            " WHERE published_at IS NULL ORDER BY id LIMIT :rows_max) AS o GROUP BY topic ORDER BY topic",
            schema,
            table=table,
        ),
        {"rows_max": PENDING_ROWS_READ_MAX},
    )
    return {row.topic: row.rows for row in rows}
