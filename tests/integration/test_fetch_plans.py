"""How PostgreSQL goes about a fetch when the backlog is long: what it reads must not grow with what waits."""

from __future__ import annotations

import re

from outboxd.postgres.fetch_sql import FetchSql, Parts
from outboxd.postgres.load_sql import sweep_text
from tests.support.postgres_fixtures import Database

ROWS = 30_000
GAPS = 50


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
        plan = connection.execute(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {FetchSql('outboxd', 'outbox').text(parts)}".encode(),
            {
                "outbox": "default", "replay_cursor": 0, "position": highest, "rows_max": 500, "bytes_max": 1 << 24,
                "record_bytes_max": 1 << 20, "gap_lows": lows, "gap_highs": [low + 2 for low in lows],
                "holder": "00000000-0000-0000-0000-000000000000", "timeline": None,
            },
        ).fetchall()  # fmt: skip
    text = "\n".join(str(line) for (line,) in plan)
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
        plan = connection.execute(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {FetchSql('outboxd', 'outbox').text(parts)}".encode(),
            {
                "outbox": "default", "replay_cursor": 0, "position": ROWS, "rows_max": 500, "bytes_max": 1 << 24,
                "record_bytes_max": 1 << 20, "catch_up_topics": ["paused"], "catch_up_ids": [1],
                "catch_up_rows_max": 500, "holder": "00000000-0000-0000-0000-000000000000", "timeline": None,
            },
        ).fetchall()  # fmt: skip
        swept = connection.execute(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sweep_text('outboxd', 'outbox')}".encode(),
            {"cursor": 0, "position": ROWS, "topics": [], "key_topics": [], "keys": [], "rows_max": 500},
        ).fetchall()
    for text in ("\n".join(str(line) for (line,) in lines) for lines in (plan, swept)):
        # Of each node; some are told once for several loops.
        rows = [float(rows) for rows in re.findall(r"actual rows=([0-9.]+)", text)]
        assert max(rows) <= 2 * 500, text
