"""Large outboxes for looking at plans: mostly published or mostly pending, and with the statistics that a bad day has.

A base of each profile is made once; each test gets copies of it, whose statistics are of its own.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import BY_FILE, Database
from tests.support.rows import Connection

ROWS = 1_000_000 if os.environ.get("OUTBOXD_TEST_LARGE") == "full" else 200_000
RETRIES = 1_000
DEAD_LETTERS = 2_000

Statistics = Literal["fresh", "stale", "none"]


@dataclass(frozen=True)
class Profile:
    """Rows with the ids 1 to ROWS, of which those up to `published_rows` are published."""

    name: str
    published_rows: int
    order: str
    """How the rows stand in the table. In no order is how they stand where many were marked and their room reused: then
    the planner believes in sorting."""


PROFILES = (
    Profile("mostly-published", ROWS * 70 // 100, "i"),
    Profile("mostly-pending", ROWS * 5 // 100, "hashint8(i)"),
)

_ROWS = """
    INSERT INTO outboxd.outbox (id, topic, key, payload, created_at, available_at, published_at, published_partition,
                                published_offset)
    OVERRIDING SYSTEM VALUE
    SELECT i, CASE WHEN i %% 10 = 0 THEN 'orders' ELSE 'paused' END,
           CASE WHEN i %% 5 = 0 THEN 'hot' WHEN i %% 7 = 0 THEN NULL ELSE 'key-' || i %% 10000 END, 'x',
           now() - CASE WHEN i <= %(published)s THEN interval '2 days' ELSE interval '1 minute' END,
           -- Of a hundred rows, one waits for a time that has come, and one for a time that has not.
           CASE WHEN i %% 100 = 11 THEN now() - make_interval(secs => i / 1e6)
                WHEN i %% 100 = 12 THEN now() + interval '1 day' + make_interval(secs => i / 1e6) END,
           CASE WHEN i <= %(published)s THEN now() - interval '2 days' END,
           CASE WHEN i <= %(published)s THEN 0 END, CASE WHEN i <= %(published)s THEN i END
      FROM generate_series(1, %(rows)s) AS i"""

_RETRIES = """
    INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)
    SELECT 'default', %(published)s + i, 1, now() + make_interval(hours => CASE WHEN i %% 2 = 0 THEN -1 ELSE 1 END),
           'REQUEST_TIMED_OUT', 'as it was' FROM generate_series(1, %(retries)s) AS i"""

# The rows of dead letters have left the outbox.
_DEAD_LETTERS = """
    INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, payload, created_at, attempts, reason,
                                     error_code, error_message, holds_key, status, resolved_at)
    SELECT 'default', %(rows)s + i, gen_random_uuid(), 'dead-' || i %% 7, 'key-' || i, 'x', now(), 1, 'fatal',
           'MSG_SIZE_TOO_LARGE', 'too large', i %% 8 = 0,
           (ARRAY['replaying', 'dead', 'dead', 'discarded', 'replayed', 'dead', 'dead', 'dead'])[1 + i %% 8],
           CASE WHEN i %% 8 IN (3, 4) THEN now() - make_interval(days => i %% 100) END
      FROM generate_series(1, %(letters)s) AS i"""


@dataclass
class LargeOutbox:
    """A copy of a base. `pending` gives ids of pending rows that nobody asked for yet."""

    database: Database
    profile: Profile
    statistics: Statistics
    pending: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self.pending = iter(range(ROWS, self.profile.published_rows + RETRIES, -1))

    @property
    def first_pending_id(self) -> int:
        return self.profile.published_rows + 1

    @property
    def says_nothing_is_pending(self) -> bool:
        """Whether the statistics are of a time when all was published, and most is pending."""
        return self.statistics == "stale" and self.profile.published_rows < ROWS // 2

    def take(self, rows: int) -> list[int]:
        """So many ids of pending rows, which the caller may settle."""
        return list(itertools.islice(self.pending, rows))


def build(server: PostgresServer, template: str, profile: Profile) -> Database:
    """Make a base of this profile; nobody may stay connected to it.

    Its statistics are of a table in which all was the other way round.
    """
    name = f"base_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    database = Database(server, name)
    with database.connect(autocommit=False) as connection:
        # The statistics are what a test makes them.
        for table in ("outbox", "retry", "dead_letter"):
            connection.execute(f"ALTER TABLE outboxd.{table} SET (autovacuum_enabled = off)".encode())
        connection.execute("ALTER TABLE outboxd.outbox DISABLE TRIGGER USER")
        was = 0 if profile.published_rows > ROWS // 2 else 10_000
        _fill(connection, _ROWS, published=was, rows=10_000)
        connection.execute("ANALYZE outboxd.outbox")
        connection.execute("TRUNCATE outboxd.outbox")
        _fill(connection, f"{_ROWS} ORDER BY {profile.order}", published=profile.published_rows, rows=ROWS)
        _fill(connection, _RETRIES, published=profile.published_rows, retries=RETRIES)
        _fill(connection, _DEAD_LETTERS, rows=ROWS, letters=DEAD_LETTERS)
    return database


@contextmanager
def copied(base: Database, profile: Profile, statistics: Statistics) -> Iterator[LargeOutbox]:
    """A copy of a base, dropped afterwards.

    Args:
        base: as `build` made it.
        profile: what it was made by.
        statistics: fresh ones, or stale as in the base, or none, as after an upgrade of the server.
    """
    name = f"copy_{uuid.uuid4().hex[:12]}"
    with base.server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{base.name}" {BY_FILE}'.encode())
    database = Database(base.server, name)
    try:
        with database.connect() as connection:
            if statistics == "fresh":
                connection.execute("ANALYZE")
            elif statistics == "none":
                connection.execute("DELETE FROM pg_statistic WHERE starelid = 'outboxd.outbox'::regclass")
        yield LargeOutbox(database, profile, statistics)
    finally:
        drop(database)


def drop(database: Database) -> None:
    """Drop a base or a copy, with whoever is connected to it."""
    with database.server.connect() as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)'.encode())


def _fill(connection: Connection, statement: str, **values: int) -> None:
    connection.execute(statement.encode(), values)
