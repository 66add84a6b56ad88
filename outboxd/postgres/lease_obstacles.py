"""What keeps a daemon from an outbox though no owner of it is there: in sentences, for the log, `run` and `check`."""

from __future__ import annotations

from typing import NamedTuple

from outboxd.errors import ConfigError
from outboxd.postgres.lease_sql import OTHER
from outboxd.postgres.names import quoted, quoted_beside_parameters
from outboxd.postgres.sessions import Connection


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


def _lease(schema: str) -> str:
    return f"{quoted_beside_parameters(schema)}.lease"


def check_drained(connection: Connection, schema: str, outbox: str) -> None:
    """Refuse to begin with exactly-once delivery on rows in doubt. Raises ConfigError."""
    doubt = doubt_of(connection, schema, outbox)
    if doubt is not None:
        raise ConfigError(doubt)
