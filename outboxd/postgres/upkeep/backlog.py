"""How many rows are pending where they are too many to be counted: an estimate, by samples along their index.

What the planner knows is of no use for that: it learns of a bulk insert, and of what was published since, with the next
ANALYZE. Nor are the ids alone: between the oldest pending row and the newest many may be published, as where a key is
held or a topic waits.

So the ids behind the last row that was counted are cut into parts, and each part tells by its first few pending rows
how dense they are there. Toward the newest id the parts are ever shorter, since a backlog grows there, however far
behind the rows are that were left over. There are no more rows than the index has room for: that bounds the estimate
where the ids leap. What is dead in the index above the newest pending row, and in each part before its first few, is
passed over; who asks again and again rests for many times as long as that took.
"""

from __future__ import annotations

from typing import Final

SAMPLE_ROWS: Final = 16
"""Rows that one part shows at most: some 10,000 for a billion of ids."""
PARTS_PER_DOUBLING: Final = 32
SHORTEST_PART_IDS: Final = 1024
_INDEX_BYTES_PER_ROW: Final = 20

_BEHIND_NEWEST: Final = f"{SHORTEST_PART_IDS} * power(2, {{i}} / {PARTS_PER_DOUBLING}.0)"
# In order and with limits that the planner cannot see, so that it goes by the index of what is pending: it may else
# read all of it.
ROWS_BEYOND: Final = f"""
    WITH newest AS MATERIALIZED (
        SELECT o.id, o.tableoid, CAST(o.id AS float8) - :last_id AS ids FROM @outbox@ AS o
         WHERE o.published_at IS NULL ORDER BY o.id DESC LIMIT (SELECT 1)
    ), part AS MATERIALIZED (
        SELECT CAST(greatest(:last_id, n.id - CAST({_BEHIND_NEWEST.format(i="i")} AS numeric)) AS bigint) AS low,
               CASE WHEN i = 0 THEN n.id ELSE
                   CAST(greatest(:last_id, n.id - CAST({_BEHIND_NEWEST.format(i="(i - 1)")} AS numeric)) AS bigint)
               END AS high
          FROM newest AS n
         CROSS JOIN generate_series(0, CAST(
               ceil({PARTS_PER_DOUBLING} * ln(greatest(1, n.ids / {SHORTEST_PART_IDS})) / ln(2)) AS int)) AS i
         WHERE n.ids > 0
    ), estimate AS (
        SELECT sum(CASE WHEN s.inside < {SAMPLE_ROWS} THEN s.inside
                        -- All that may be shown are within: the rest of the part is taken to be as dense.
                        ELSE (s.inside - 1) * (CAST(p.high AS numeric) - p.low) / (s.last_id - p.low - 1) END) AS rows
          FROM part AS p
         CROSS JOIN LATERAL (
               SELECT count(*) AS inside, CAST(max(b.id) AS numeric) AS last_id
                 FROM (SELECT o.id FROM @outbox@ AS o
                        WHERE o.published_at IS NULL AND o.id > p.low AND o.id <= p.high
                        ORDER BY o.id LIMIT (SELECT {SAMPLE_ROWS})) AS b) AS s
    )
    SELECT CAST(round(least(coalesce(e.rows, 0), (
               SELECT min(pg_relation_size(x.indexrelid)) / {_INDEX_BYTES_PER_ROW}
                 FROM newest AS n JOIN pg_index AS x ON x.indrelid = n.tableoid
                WHERE pg_get_expr(x.indpred, x.indrelid) = '(published_at IS NULL)'))) AS bigint) AS rows
      FROM estimate AS e"""
"""How many rows are pending behind the one with `:last_id`."""
