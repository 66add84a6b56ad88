"""The writers: whatever happens to the servers, they go on, at the rate that brings all rows in within the time.

- ordered: a lock before the ids are drawn, as docs/applications.md asks for; the order of these keys has no excuse.
- late: overlapping transactions on shared keys; a row may commit after a newer one was sent.
- drawn: ids drawn long before their insert, which nothing but the sweep finds; their order is not promised.
All of them roll back now and then.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from tests.chaos.campaign.servers import Postgres
from tests.chaos.campaign.witness import PARTITION_PREFIX

Connection = psycopg.Connection[Any]

ORDERED_WRITERS = 3
KEYS_A_WRITER = 700
LATE_WRITERS = 2
ROWS_AT_ONCE_MAX = 400
RATE_MAX = 6_000.0
ROLLBACK_SHARE = 0.04
DRAWN_PREFIX = "drawn-"
LATE_PREFIX = "late-"

_PAYLOAD = (
    "CASE WHEN r < 0.02 THEN NULL WHEN r < 0.04 THEN ''::bytea"
    " WHEN r < 0.2 THEN decode(md5(r::text), 'hex') || '\\x00ff'::bytea"
    " ELSE convert_to(repeat(md5(r::text), 1 + (r * r * 14)::int), 'UTF8') END"
)
_HEADERS = (
    "CASE (s * 5)::int WHEN 0 THEN jsonb_build_object('kind', md5(s::text), 'größe', 'ß\"\\n')"
    ' WHEN 1 THEN \'[["a", "1"], ["a", null], ["b", ""]]\'::jsonb ELSE \'{}\'::jsonb END'
)
ORDERED = (
    "INSERT INTO outboxd.outbox (topic, key, payload, headers, partition)"
    " SELECT (%(topics)s::text[])[1 + (t * %(topic_count)s)::int %% %(topic_count)s],"
    f" CASE WHEN s < 0.02 AND NOT %(keyed)s THEN NULL"
    f" WHEN s > 0.97 THEN '{PARTITION_PREFIX}' || (k %% 3) || '-' || %(prefix)s || k ELSE %(prefix)s || k END,"
    f" {_PAYLOAD}, {_HEADERS}, CASE WHEN s > 0.97 THEN k %% 3 END"
    " FROM (SELECT random() AS r, random() AS s, random() AS t, (random() * %(keys)s)::int AS k"
    "  FROM generate_series(1, %(rows)s)) AS drawn"
)
_DRAWN = (
    "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE"
    f" SELECT id, %s, '{DRAWN_PREFIX}' || id %% 50, convert_to(md5(id::text), 'UTF8') FROM unnest(%s::bigint[]) AS id"
)


class Load:
    """Writes `rows` over `seconds`, as evenly as faults allow."""

    def __init__(
        self,
        postgres: Postgres,
        topics: Sequence[str],
        compacted: str,
        *,
        rows: int,
        seconds: float,
        keys: int = KEYS_A_WRITER,
    ) -> None:
        self._postgres = postgres
        self._topics, self._compacted = list(topics), compacted
        self._wanted, self._seconds, self._keys = rows, seconds, keys
        self._began_at = time.monotonic()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.committed = 0
        """Rows that were committed for sure; a commit without an answer may have happened too."""
        self.rolled_back = 0
        self.unanswered = 0
        writers: list[Callable[[Connection, random.Random, str], None]] = [self._ordered] * ORDERED_WRITERS
        writers += [self._late] * LATE_WRITERS + [self._drawn]
        self._threads = [
            threading.Thread(target=self._write, args=(writer, f"w{number}-"), name=f"writer-{number}", daemon=True)
            for number, writer in enumerate(writers)
        ]

    def start(self) -> None:
        self._began_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the writers finish what they are at."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def is_done(self) -> bool:
        return self.committed >= self._wanted

    # --- A writer's thread

    def _write(self, work: Callable[[Connection, random.Random, str], None], name: str) -> None:
        dice = random.Random(name)
        while not (self._stopping.is_set() or self.is_done):
            # Writers have no proxy; where the server is gone they come again, as applications do.
            with contextlib.suppress(psycopg.Error), self._postgres.connect(application="writer") as connection:
                while not (self._stopping.is_set() or self.is_done):
                    work(connection, dice, name)
            self._stopping.wait(0.1)

    def _pace(self) -> float:
        """Rows a second that are wanted now."""
        left = max(1.0, self._seconds - (time.monotonic() - self._began_at))
        return min(RATE_MAX, (self._wanted - self.committed) / left)

    def _ordered(self, connection: Connection, dice: random.Random, name: str) -> None:
        began_at = time.monotonic()
        rows = dice.randint(20, ROWS_AT_ONCE_MAX)
        is_compacted = dice.random() < 0.1
        topics = [self._compacted] if is_compacted else self._topics
        with self._transaction(connection, dice, rows):
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (name,))
            connection.execute(
                ORDERED,
                {
                    "topics": topics, "topic_count": len(topics), "keyed": is_compacted, "prefix": name,
                    "keys": self._keys, "rows": rows,
                },
            )  # fmt: skip
            if dice.random() < 0.05:
                self._stopping.wait(dice.uniform(0, 0.3))
        # A pace, not a wait: the load shall be there for the whole of every fault.
        due = rows / max(1.0, self._pace()) * ORDERED_WRITERS
        self._stopping.wait(max(0.0, due - (time.monotonic() - began_at)))

    def _late(self, connection: Connection, dice: random.Random, name: str) -> None:
        rows = dice.randint(1, 10)
        with self._transaction(connection, dice, rows):
            for _ in range(rows):
                connection.execute(
                    "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, convert_to(%s, 'UTF8'))",
                    (dice.choice(self._topics), f"{LATE_PREFIX}{dice.randrange(30)}", name),
                )
                self._stopping.wait(dice.uniform(0, 0.1))
        self._stopping.wait(0.05)

    def _drawn(self, connection: Connection, dice: random.Random, name: str) -> None:
        rows = dice.randint(1, 20)
        found = connection.execute(
            "SELECT nextval(pg_get_serial_sequence('outboxd.outbox', 'id')) FROM generate_series(1, %s)", (rows,)
        ).fetchall()
        self._stopping.wait(dice.uniform(0.2, 3.0))
        with self._transaction(connection, dice, rows):
            connection.execute(_DRAWN, (dice.choice(self._topics), [row[0] for row in found]))

    @contextlib.contextmanager
    def _transaction(self, connection: Connection, dice: random.Random, rows: int) -> Any:
        """One transaction, rolled back now and then; counted."""
        rolls_back = dice.random() < ROLLBACK_SHARE
        connection.execute("BEGIN")
        try:
            yield
            connection.execute("ROLLBACK" if rolls_back else "COMMIT")
        except psycopg.Error:
            with self._lock:
                self.unanswered += rows
            if not connection.closed:
                connection.execute("ROLLBACK")
            raise
        with self._lock:
            if rolls_back:
                self.rolled_back += rows
            else:
                self.committed += rows
