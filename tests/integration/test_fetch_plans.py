"""How PostgreSQL goes about a fetch when the backlog is long: what it reads must not grow with what waits."""

from __future__ import annotations

import re
from collections.abc import Mapping

from outboxd.postgres.fetch_sql import FetchSql, Parts
from outboxd.postgres.load_sql import sweep_text
from outboxd.postgres.ownership import NOBODY
from outboxd.postgres.sessions import Connection
from tests.support.postgres_fixtures import Database

ROWS = 30_000
GAPS = 50


def plan(connection: Connection, statement: str, arguments: Mapping[str, object]) -> str:
    """Execute the statement and return how PostgreSQL went about it."""
    explained = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}".encode()
    return "\n".join(str(line) for (line,) in connection.execute(explained, arguments).fetchall())


def fetch_plan(connection: Connection, parts: Parts, **arguments: object) -> str:
    """The same of a fetch of at most 500 rows."""
    limits = {"rows_max": 500, "bytes_max": 1 << 24, "record_bytes_max": 1 << 20}
    owner = {"outbox": "default", "holder": NOBODY.holder, "timeline": NOBODY.timeline, "replay_cursor": 0}
    return plan(connection, FetchSql("outboxd", "outbox").text(parts), {**limits, **owner, **arguments})


def test_looking_back_into_gaps_walks_the_gaps_and_not_the_backlog(database: Database) -> None:
    parts = Parts(**{name: name in ("look_back", "forward") for name in Parts.__dataclass_fields__})
    highest = ROWS // 20
    lows = list(range(1, highest, highest // GAPS))
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload)"
            " SELECT 'orders', 'key-' || i %% 100, 'x' FROM generate_series(1, %s) AS i",
            (ROWS,),
        )
        connection.execute("ANALYZE outboxd.outbox")
        text = fetch_plan(connection, parts, position=highest, gap_lows=lows, gap_highs=[low + 2 for low in lows])
    removed = [int(rows) for rows in re.findall(r"Rows Removed by Join Filter: (\d+)", text)]
    assert sum(removed) < ROWS, text


def test_a_topic_that_goes_on_is_read_a_batch_at_a_time_and_its_backlog_is_not_sorted(database: Database) -> None:
    parts = Parts(**{name: name == "catch_up" for name in Parts.__dataclass_fields__})
    with database.connect() as connection:
        # The rows stand in no order, as they do once many were marked: that is when the planner prefers to sort.
        connection.execute(
            "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE"
            " SELECT i, 'paused', 'key-' || i %% 100, 'x' FROM generate_series(1, %s) AS i ORDER BY hashint8(i)",
            (ROWS,),
        )
        connection.execute("ANALYZE outboxd.outbox")
        fetched = fetch_plan(
            connection, parts, position=ROWS, catch_up_topics=["paused"], catch_up_ids=[1], catch_up_rows_max=500
        )
        swept = plan(
            connection,
            sweep_text("outboxd", "outbox"),
            {"cursor": 0, "position": ROWS, "topics": [], "key_topics": [], "keys": [], "rows_max": 500},
        )
    for text in (fetched, swept):
        # Of each node; some are told once for several loops.
        rows = [float(rows) for rows in re.findall(r"actual rows=([0-9.]+)", text)]
        assert max(rows) <= 2 * 500, text
