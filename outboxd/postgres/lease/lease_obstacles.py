"""What keeps a daemon from an outbox though no owner of it is there: in sentences, for the log, `run` and `check`."""

from __future__ import annotations

from typing import NamedTuple

from outboxd.errors import ConfigError
from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.lease.lease_sql import OTHER
from outboxd.postgres.schema.names import quoted, quoted_beside_parameters

# Of older revisions the table lacks a column.
_SAME_JOINED = """SELECT n.nspname, substr(%(joined)s, length(n.nspname) + 2)
      FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'lease' AND c.relkind = 'r'
     WHERE n.nspname <> %(schema)s AND starts_with(%(joined)s, n.nspname || '-')
       AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
       AND (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND NOT a.attisdropped
               AND a.attname IN ('outbox', 'shard', 'daemon', 'undrained', 'expires_at')) = 5"""


class Obstacle(NamedTuple):
    """What is in the way, and what to do."""

    problem: str
    remedy: str


def doubt_of(connection: Connection, schema: str, outbox: str) -> str | None:
    """Return why exactly-once delivery may not begin now, in a sentence; None where it may, or must wait for an
    owner.
    """
    row = connection.execute(
        f"SELECT daemon FROM {_lease(schema)} WHERE outbox = %s AND shard = 0 AND undrained"
        " AND expires_at <= clock_timestamp()",
        (outbox,),
    ).fetchone()
    if row is None:
        return None
    return (
        f'the outbox {outbox} was relayed with delivery = "at-least-once" last, and that daemon ({row[0]}) did not '
        "drain it: rows may be in Kafka that are not marked, and exactly-once would send them again. Run it once more "
        'with delivery = "at-least-once" and --until-empty, nothing held or paused; or accept the duplicates by '
        f"UPDATE {quoted(schema)}.lease SET undrained = false"
    )


def other_outbox_of(connection: Connection, schema: str, outbox: str, relayed_table: str) -> Obstacle | None:
    """Return which outbox of another name is relayed from the same table now; None where there is none."""
    arguments = {"outbox": outbox, "relayed_table": relayed_table}
    row = connection.execute(
        f"SELECT r.outbox, r.daemon FROM {_lease(schema)} AS r WHERE {OTHER}", arguments
    ).fetchone()
    if row is None:
        return None
    return Obstacle(
        f"the table {relayed_table} is relayed by {row[1]} as the outbox {row[0]}, and this daemon's outbox.name is "
        f"{outbox}: both would publish each row",
        "Give both the same outbox.name, or each a table of its own (outbox.table)",
    )


def same_identity_of(connection: Connection, schema: str, outbox: str) -> Obstacle | None:
    """Return which outbox of another schema is delivered exactly once now under the same `transactional.id`; None where
    there is none, or its lease may not be read.

    The schema and the outbox stand in it with a hyphen between, which both may have in their own names: what is `a-b`
    and `c` is `a` and `b-c` too.
    """
    joined = f"{schema}-{outbox}"
    for other_schema, other in connection.execute(_SAME_JOINED, {"schema": schema, "joined": joined}).fetchall():
        row = connection.execute(
            f"SELECT daemon FROM {_lease(other_schema)} WHERE outbox = %s AND shard = 0 AND NOT undrained"
            " AND expires_at > clock_timestamp()",
            (other,),
        ).fetchone()
        if row is not None:
            return Obstacle(
                f"the outbox {other} of the schema {other_schema}, which {row[0]} relays with exactly-once delivery, "
                f"and the outbox {outbox} of the schema {schema} have one transactional.id: their daemons would take "
                "it from each other, and have one progress topic",
                "Give one of the two another outbox.name",
            )
    return None


def _lease(schema: str) -> str:
    return f"{quoted_beside_parameters(schema)}.lease"


def check_exactly_once(connection: Connection, schema: str, outbox: str) -> None:
    """Refuse to begin with exactly-once delivery on rows in doubt, or under the identity of another. Raises
    ConfigError.
    """
    doubt = doubt_of(connection, schema, outbox)
    if doubt is not None:
        raise ConfigError(doubt)
    other = same_identity_of(connection, schema, outbox)
    if other is not None:
        raise ConfigError(f"{other.problem}. {other.remedy}")
