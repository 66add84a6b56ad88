"""What is still pending when a relay has done all that it may do now: for the end of `run --until-empty`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outboxd.policy.blame.routes import matches_pattern
from outboxd.postgres.connections.engine import connection_string, open_driver
from outboxd.postgres.schema.names import quoted_beside_parameters

GROUPS_SHOWN_MAX = 50
ROWS_LOOKED_AT_MAX = 100_000


def describe_pending(url: str, password: str, schema: str, table: str, outbox: str) -> list[str]:
    """Return a line for each topic with pending rows: how many, and why they are not published; what is not listed, or
    not even looked at, of very many is told too.
    """
    s, rows = quoted_beside_parameters(schema), f"{quoted_beside_parameters(schema)}.{quoted_beside_parameters(table)}"
    statement = (
        "SELECT coalesce(o.topic::text, ''), CASE WHEN o.available_at > now() THEN 'not yet available'"
        f" WHEN EXISTS (SELECT FROM {s}.retry AS r WHERE r.outbox = %(outbox)s AND r.outbox_id = o.id)"
        " THEN 'to be retried' END AS why, count(*), min(o.id), count(*) OVER (), sum(count(*)) OVER ()"
        f" FROM (SELECT * FROM {rows} WHERE published_at IS NULL ORDER BY id LIMIT {ROWS_LOOKED_AT_MAX}) AS o"
        f" GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {GROUPS_SHOWN_MAX}"
    )
    arguments = {"outbox": outbox}
    with open_driver(connection_string(url, password)) as connection:
        found = connection.execute(statement, arguments).fetchall()
        paused = connection.execute(f"SELECT topic_pattern FROM {s}.control WHERE outbox = %(outbox)s", arguments)
        patterns = [str(pattern) for (pattern,) in paused.fetchall()]
    lines = [
        f"still pending: {_rows(count)} of topic {topic!r}, {why or _why(str(topic), patterns)}, from id {first}"
        for topic, why, count, first, _, _ in found
    ]
    return [*lines, *_left_out(found)]


def _rows(count: object) -> str:
    """The number with its noun."""
    return f"{count} row{'s' * (count != 1)}"


def _left_out(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Of more topics, or more rows, than can be listed nobody is to believe that these are all."""
    if not found:
        return []
    _, _, _, _, groups, rows = found[0]
    lines = []
    if groups > len(found):
        listed = sum(group[2] for group in found)
        lines.append(f"still pending: {_rows(rows - listed)} of other topics; `outboxd status` counts them all")
    if rows == ROWS_LOOKED_AT_MAX:
        lines.append(
            f"only the first {rows:,} pending rows were looked at; `outboxd status` says about how many there are"
        )
    return lines


def _why(topic: str, patterns: Sequence[str]) -> str:
    is_paused = any(matches_pattern(topic, pattern) for pattern in patterns)
    return "paused" if is_paused else "held or committed late"
