"""Kept rows: those that a settlement was to change, and that are pending still, though nothing was refused.

A trigger that returns NULL, or a policy of row-level security, leaves a row out of a statement without a word. Whoever
took such a row for settled would read it as a new one, send it again, and go on so for ever.
"""

from __future__ import annotations

from psycopg.rows import tuple_row

from outboxd.policy.exchange.requests import Settlement
from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.schema.names import quoted_beside_parameters
from outboxd.postgres.store.settle_sql import IS_PENDING, of_same_event

KEPT = (
    "the statement passed and left the row pending; look for a trigger of the table that returns NULL, and for a "
    "policy of row-level security that hides the row from UPDATE or DELETE"
)


def are_kept(connection: Connection, schema: str, table: str, settlement: Settlement) -> bool:
    """Say whether rows that this settlement delivers or buries are pending. It looks by the primary key."""
    qualified = f"{quoted_beside_parameters(schema)}.{quoted_beside_parameters(table)}"
    delivered, dead = settlement.delivered_ids, [record_id for record_id, _ in settlement.dead]
    pieces = [
        *(settlement.delivered_pieces or [None] * len(delivered)),
        *(settlement.dead_pieces or [None] * len(dead)),
    ]
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            f"SELECT FROM unnest(%(ids)s::bigint[], %(pieces)s::bigint[]) AS d(id, piece) JOIN {qualified} AS o"
            f" ON o.id = d.id AND {IS_PENDING} AND {of_same_event('o.event_id')} LIMIT 1",
            {"ids": [*delivered, *dead], "pieces": pieces},
        ).fetchone()
    return found is not None
