"""The statements around the fetch: what a new owner must know first, and the sweep of the pending index."""

from __future__ import annotations

from outboxd.policy.fetch.limits import REPLAYS_MAX
from outboxd.postgres.lease.ownership import HAS_MOVED, is_owned_text
from outboxd.postgres.schema.finite import finite, finite_ms
from outboxd.postgres.schema.lineage import LINEAGE
from outboxd.postgres.schema.names import quoted_beside_parameters
from outboxd.postgres.store.fetch_sql import limit_text


def load_text(schema: str, table: str) -> str:
    """Return the statement that lists what is held: all of `retry`, all dead letters that hold their key, and the first
    of the others that are replayed, so that they go before newer rows of their keys. The fetches list the rest of them.
    """
    s = quoted_beside_parameters(schema)
    outbox = f"{s}.{quoted_beside_parameters(table)}"
    letters = (
        "SELECT l.outbox_id, l.topic, l.key, l.attempts, l.id, l.status = 'replaying', 0::float8,"
        f" 0::float8, {_seconds_since('l.died_at')}, '' FROM {s}.dead_letter AS l WHERE l.outbox = %(outbox)s AND"
    )
    return (
        f"SELECT r.outbox_id, o.topic, o.key, r.attempts, NULL::bigint, false,"
        f" greatest(0, date_part('epoch', {finite('r.next_attempt_at')} - now())),"
        f" date_part('epoch', r.own_age), {_seconds_since('r.first_failed_at')}, r.error_code"
        # Row by row: a join the planner may begin with all that is pending.
        f" FROM {s}.retry AS r CROSS JOIN LATERAL (SELECT p.topic, p.key FROM {outbox} AS p WHERE p.id = r.outbox_id"
        " AND p.published_at IS NULL LIMIT 1) AS o"
        " WHERE r.outbox = %(outbox)s"
        f" UNION ALL {letters} l.holds_key AND l.status IN ('dead', 'replaying')"
        f" UNION ALL ({letters} NOT l.holds_key AND l.status = 'replaying' ORDER BY l.outbox_id"
        f" {limit_text(str(REPLAYS_MAX))}) ORDER BY 1"
    )


def _seconds_since(at: str) -> str:
    return f"greatest(0, date_part('epoch', now() - {finite(at)}))"


def progress_text(schema: str) -> str:
    """Return the statement for the last settled Kafka transaction, for the lineage (which database and table this is),
    and for whether the lease is ours, and this another server than that which gave it.
    """
    return (
        f"SELECT coalesce((SELECT p.settled_transaction FROM {quoted_beside_parameters(schema)}.progress AS p"
        " WHERE p.outbox = %(outbox)s AND p.shard = 0), 0),"
        f" {LINEAGE},"
        f" {is_owned_text(schema)}, {HAS_MOVED}"
    )


def pauses_text(schema: str) -> str:
    """Return the statement that lists the pauses, with the database's time in every row."""
    s = quoted_beside_parameters(schema)
    return (
        "SELECT (date_part('epoch', now()) * 1000)::bigint, c.topic_pattern,"
        f" CASE WHEN c.since IS NOT NULL THEN {finite_ms('c.since')} END,"
        f" c.who, c.note FROM (VALUES (1)) AS one(row) LEFT JOIN {s}.control AS c ON c.outbox = %(outbox)s"
        " ORDER BY 2"
    )


def sweep_text(schema: str, table: str, *, is_first: bool) -> str:
    """Return the statement that looks at one chunk of the pending index, the first or one behind the cursor, up to the
    position, and tells of it what is not deferred anyway.

    Where more may follow, it gives one more row, without a topic: the last id that was looked at. A chunk is so many
    rows looked at, lest one statement pass over a whole backlog of what is deferred.
    """
    outbox = f"{quoted_beside_parameters(schema)}.{quoted_beside_parameters(table)}"
    # Nothing is below the first cursor: the lowest id of all is read from there on.
    behind = ">=" if is_first else ">"
    return (
        "WITH chunk AS MATERIALIZED (SELECT o.id, coalesce(o.topic, '') AS topic, o.key, o.available_at"
        f" FROM {outbox} AS o WHERE o.published_at IS NULL AND o.id {behind} %(cursor)s"
        # A comparison of rows, lest the planner take it for a narrow range, see FetchSql.
        f" AND (o.id, 0) <= (%(position)s, 0) ORDER BY o.id {limit_text('%(rows_max)s')})"
        " SELECT c.id, c.topic, c.key FROM chunk AS c WHERE (c.available_at IS NULL OR c.available_at <= now())"
        " AND NOT EXISTS (SELECT FROM unnest(%(topics)s::text[], %(from_ids)s::bigint[]) AS d(topic, from_id)"
        " WHERE d.topic = c.topic AND c.id >= d.from_id)"
        # As `NOT … = ANY` the keys are looked up by a hash, as `<> ALL` each is compared.
        " AND (c.key IS NULL OR NOT hashtextextended(c.key, hashtextextended(c.topic, 0)) = ANY("
        "SELECT hashtextextended(k.key, hashtextextended(k.topic, 0))"
        " FROM unnest(%(key_topics)s::text[], %(keys)s::text[]) AS k(topic, key)))"
        " UNION ALL SELECT max(c.id), NULL, NULL FROM chunk AS c HAVING count(*) >= %(rows_max)s"
    )
