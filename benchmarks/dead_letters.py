"""How quick the dead letters are to work with when there are a million of them.

    python -m benchmarks.dead_letters [--rows 1000000]

Starts a PostgreSQL of its own, fills the table, and prints the time of each thing that people do: the best and the
worst of five runs (bulk replay: one run, in batches). The limits: summary 2 s, list 200 ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import psycopg

from outboxd.postgres.migrate import upgrade
from tests.support.postgres import PostgresServer

RUNS = 5
BATCH_ROWS = 1000

# A hundred kinds: ten topics, five codes, two reasons; a hundred thousand keys; payloads of 288 bytes.
FILL = """
INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, payload, headers, created_at, attempts,
                                 reason, error_code, error_message, died_at, daemon, holds_key)
SELECT 'default', n, gen_random_uuid(), 'topic.' || mod(n, 10), 'key-' || mod(n, 100000),
       convert_to(repeat(md5(n::text), 9), 'UTF8'), '{"trace": "0af7651916cd43dd8448eb211c80319c"}',
       now() - interval '1 day', 1 + mod(n, 3), (ARRAY['fatal', 'exhausted'])[1 + mod(n / 50, 2)],
       (ARRAY['MSG_SIZE_TOO_LARGE', 'INVALID_RECORD', 'INVALID_TOPIC', 'REQUEST_TIMED_OUT',
              'INVALID_TIMESTAMP'])[1 + mod(n / 10, 5)],
       'Broker: Message size too large (10): raise max.message.bytes', now() - n * interval '80 ms', 'host:1',
       mod(n, 100) = 0
  FROM generate_series(1, %s) AS n
"""
RECENT = "SELECT * FROM outboxd.dead_letter_recent"
DEAD = f"{RECENT} WHERE status = 'dead'"
TOPIC = "outboxd.topic_is(topic, 'topic.3')"
CODE = "error_code = 'INVALID_RECORD'"

QUERIES = {
    "summary": "SELECT * FROM outboxd.dead_letter_summary",
    "list, newest 100": f"{RECENT} LIMIT 100",
    "list, dead, newest 100": f"{DEAD} LIMIT 100",
    "list, one topic": f"{DEAD} AND {TOPIC} LIMIT 100",
    "list, a topic that is not there": f"{DEAD} AND outboxd.topic_is(topic, 'none') LIMIT 100",
    "list, one code": f"{DEAD} AND {CODE} LIMIT 100",
    "list, one topic and code": f"{DEAD} AND {TOPIC} AND {CODE} LIMIT 100",
    "list, one key": """
        SELECT * FROM outboxd.dead_letter
         WHERE topic = 'topic.7' AND key = 'key-77' AND hashtextextended(key, hashtextextended(topic, 0))
                                                      = hashtextextended('key-77', hashtextextended('topic.7', 0))
         ORDER BY outbox_id LIMIT 100""",
    "one in full": f"{RECENT} WHERE id = 500000",
    "status": "SELECT * FROM outboxd.status",
    "held keys, first 100": "SELECT * FROM outboxd.held_keys LIMIT 100",
    "dry run of 1,000": "SELECT outboxd.replay_where(topic => 'topic.3', max_rows => 1000)",
    "the relay: replays to send": """
        SELECT * FROM outboxd.dead_letter WHERE outbox = 'default' AND status = 'replaying'
         ORDER BY outbox_id LIMIT 500""",
}


def timed_ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    server = PostgresServer({"shared_buffers": "256MB", "max_wal_size": "4GB"})
    try:
        server.start()
        upgrade(server.url(), "outboxd")
        with server.connect() as connection:
            fill_ms = timed_ms(lambda: connection.execute(FILL, (rows,)))
            connection.execute("VACUUM (ANALYZE) outboxd.dead_letter")
            size = connection.execute("SELECT pg_size_pretty(pg_total_relation_size('outboxd.dead_letter'))").fetchone()
            print(f"{rows:,} dead letters, {size[0] if size else '?'}, filled in {fill_ms / 1000:.0f} s")
            for name, query in QUERIES.items():
                report(connection, name, query)
            bulk(connection)
    finally:
        server.destroy()


def report(connection: psycopg.Connection[tuple[object, ...]], name: str, query: str) -> None:
    times = sorted(timed_ms(lambda: connection.execute(query).fetchall()) for _ in range(RUNS))
    print(f"{name:<31} best {times[0]:9.1f} ms   worst {times[-1]:9.1f} ms")


def bulk(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Replays all of one topic in batches, as the shell does it."""
    replay = "SELECT outboxd.replay_where(topic => 'topic.3', max_rows => %s, dry_run => false, force => true)"
    times: list[float] = []
    taken, count = 0, BATCH_ROWS

    def batch() -> None:
        nonlocal count
        row = connection.execute(replay, (BATCH_ROWS,)).fetchone()
        count = int(str(row[0])) if row else 0

    while count == BATCH_ROWS and len(times) < 100:
        times.append(timed_ms(batch))
        taken += count
    total, worst = sum(times) / 1000, max(times)
    print(f"bulk replay of {taken:,} in batches of {BATCH_ROWS:,}: {total:.1f} s, worst batch {worst:.0f} ms")


if __name__ == "__main__":
    main()
