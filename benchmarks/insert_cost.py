"""What outboxd costs the application's insert: with the trigger that wakes a listening relay, and without.

    python -m benchmarks.insert_cost

Starts a PostgreSQL of its own, without fsync so that the disk does not hide the difference, and prints the median and
the best of seven rounds, taken in turn so that a noisy neighbour meets all alike.
"""

from __future__ import annotations

import statistics
import time

import psycopg

from outboxd.postgres.migrate import upgrade
from tests.support.postgres import PostgresServer

ROUNDS = 7
SINGLE_INSERTS = 3000
BULK_INSERTS = 20

ONE_ROW = "INSERT INTO outboxd.outbox (topic, key, payload) VALUES ('t', 'k', 'x')"
THOUSAND_ROWS = "INSERT INTO outboxd.outbox (topic, key, payload) SELECT 't', 'k', 'x' FROM generate_series(1, 1000)"
MODES = {
    "no trigger": ("DISABLE", False),
    "trigger, nobody listens": ("ENABLE", False),
    "trigger, the relay listens": ("ENABLE", True),
}


def seconds_each(connection: psycopg.Connection[tuple[object, ...]], statement: str, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        connection.execute(statement, prepare=True)
    return (time.perf_counter() - began) / count


def main() -> None:
    server = PostgresServer({"synchronous_commit": "off"})
    single: dict[str, list[float]] = {mode: [] for mode in MODES}
    bulk: dict[str, list[float]] = {mode: [] for mode in MODES}
    try:
        server.start()
        upgrade(server.url(), "outboxd")
        with server.connect() as connection:
            connection.execute(
                "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at)"
                " VALUES ('default', gen_random_uuid(), 'here:1', 1, now() + interval '1 hour')"
            )
            for _ in range(ROUNDS):
                for mode, (trigger, listening) in MODES.items():
                    connection.execute(f"ALTER TABLE outboxd.outbox {trigger} TRIGGER outbox_wake_relay")
                    connection.execute("UPDATE outboxd.lease SET listening = %s", (listening,))
                    connection.execute("TRUNCATE outboxd.outbox")
                    seconds_each(connection, ONE_ROW, SINGLE_INSERTS // 10)
                    single[mode].append(seconds_each(connection, ONE_ROW, SINGLE_INSERTS) * 1e6)
                    bulk[mode].append(seconds_each(connection, THOUSAND_ROWS, BULK_INSERTS) * 1e3)
    finally:
        server.destroy()
    for mode in MODES:
        one, many = single[mode], bulk[mode]
        print(
            f"{mode:<27} one row a transaction: median {statistics.median(one):4.0f} µs, best {min(one):4.0f} µs;"
            f"   1,000 rows: median {statistics.median(many):5.2f} ms, best {min(many):5.2f} ms"
        )


if __name__ == "__main__":
    main()
