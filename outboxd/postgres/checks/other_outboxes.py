"""Other outboxes of the database that somebody has to know of, though no daemon here relays them; told by
`outboxd check`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.schema.finite import finite
from outboxd.postgres.schema.sql_text import in_schema

COUNTED_MAX = 10_000
# Of the outbox asked about itself, the status tells. Somebody may have ended a lease by hand, before all time.
_WAITING = f"""SELECT d.outbox, count(*) AS letters,
           (SELECT {finite("l.expires_at")} FROM @schema@.lease AS l WHERE l.outbox = d.outbox AND l.shard = 0)
               AS relayed_until
      FROM (SELECT r.outbox FROM @schema@.dead_letter AS r
             WHERE r.status = 'replaying' AND r.outbox <> :outbox
               AND NOT EXISTS (SELECT FROM @schema@.lease AS l WHERE l.outbox = r.outbox AND l.shard = 0
                                  AND l.expires_at > clock_timestamp())
             LIMIT :counted_max) AS d
     GROUP BY d.outbox ORDER BY d.outbox"""


def waiting_replays(connection: Connection, schema: str, outbox: str) -> Iterator[Finding]:
    """Tell of replays of other outboxes of the schema which no daemon relays now."""
    values = {"outbox": outbox, "counted_max": COUNTED_MAX}
    for other in connection.execute(in_schema(_WAITING, schema), values):
        letters = "1 dead letter" if other.letters == 1 else f"{other.letters:,} dead letters"
        since = (
            "was never relayed"
            if other.relayed_until is None
            else f"has been relayed by nobody since {other.relayed_until}"
        )
        yield Finding(
            "database",
            Weight.WARNING,
            f"the outbox {other.outbox} {since}: the replay of {letters} of it waits",
            "run a daemon with this outbox.name; where the outbox was renamed, and its table is relayed under another "
            f"name now, UPDATE dead_letter SET outbox = that name WHERE outbox = '{other.outbox}'",
        )
