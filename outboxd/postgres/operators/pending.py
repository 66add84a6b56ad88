"""What is still pending when a relay has done all that it may do now: for the end of `run --until-empty`."""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.blame.routes import matches_pattern
from outboxd.postgres.connections.engine import connection_string, open_driver
from outboxd.postgres.schema.names import quoted_beside_parameters

TOPICS_SHOWN_MAX = 50


def describe_pending(url: str, password: str, schema: str, table: str, outbox: str) -> list[str]:
    """Return a line for each topic with pending rows: how many, and why they are not published."""
    s, rows = quoted_beside_parameters(schema), f"{quoted_beside_parameters(schema)}.{quoted_beside_parameters(table)}"
    statement = (
        "SELECT o.topic, CASE WHEN o.available_at > now() THEN 'not yet available'"
        f" WHEN EXISTS (SELECT FROM {s}.retry AS r WHERE r.outbox = %(outbox)s AND r.outbox_id = o.id)"
        " THEN 'to be retried' END AS why, count(*), min(o.id)"
        f" FROM (SELECT * FROM {rows} WHERE published_at IS NULL ORDER BY id LIMIT 100000) AS o"
        f" GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {TOPICS_SHOWN_MAX}"
    )
    arguments = {"outbox": outbox}
    with open_driver(connection_string(url, password)) as connection:
        found = connection.execute(statement, arguments).fetchall()
        paused = connection.execute(f"SELECT topic_pattern FROM {s}.control WHERE outbox = %(outbox)s", arguments)
        patterns = [str(pattern) for (pattern,) in paused.fetchall()]
    return [
        f"still pending: {count} row{'s' * (count != 1)} of topic {topic!r}, {why or _why(str(topic), patterns)},"
        f" from id {first}"
        for topic, why, count, first in found
    ]


def _why(topic: str, patterns: Sequence[str]) -> str:
    is_paused = any(matches_pattern(topic, pattern) for pattern in patterns)
    return "paused" if is_paused else "held or committed late"
