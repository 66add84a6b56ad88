"""How many rows are pending is estimated well enough where they are too many to be counted, whatever PostgreSQL knows
of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboxd.policy.rows.records import FIRST_ID, ID_MAX
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.operators import overview
from outboxd.postgres.upkeep.housekeeping import COUNTED_MAX, Housekeeping
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, value


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("ALTER TABLE outboxd.outbox SET (autovacuum_enabled = off)")
        yield connection


def insert(connection: Connection, rows: int, first_id: int = 1, published: str = "false") -> None:
    """Rows in one statement; `published` says of which ids `i`."""
    connection.execute(
        "INSERT INTO outboxd.outbox (id, topic, payload, published_at) OVERRIDING SYSTEM VALUE"
        f" SELECT i, 't', 'x', CASE WHEN {published} THEN now() END"
        f" FROM generate_series(({first_id})::bigint, ({first_id + rows - 1})::bigint) AS i"
    )


def publish(connection: Connection, which: str) -> None:
    connection.execute(f"UPDATE outboxd.outbox SET published_at = now() WHERE published_at IS NULL AND {which}")


def error_of(housekeeping: Housekeeping, connection: Connection) -> float:
    """How far the estimate is off, as a share of what is pending."""
    found = housekeeping.measure()
    pending = int(value(connection, "SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL"))
    assert found.pending == COUNTED_MAX + 1 < pending
    return abs(found.pending_estimate / pending - 1)


def test_a_bulk_insert_is_seen_before_anything_was_analyzed(housekeeping: Housekeeping, connection: Connection) -> None:
    insert(connection, 250_000)
    assert error_of(housekeeping, connection) < 0.001
    connection.execute("ANALYZE outboxd.outbox")
    insert(connection, 150_000, 300_000)
    assert error_of(housekeeping, connection) < 0.01


def test_what_was_drained_is_seen_before_anything_was_vacuumed(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    insert(connection, 200_000)
    connection.execute("ANALYZE outboxd.outbox")
    publish(connection, "id <= 150000")
    assert error_of(housekeeping, connection) < 0.001
    publish(connection, "true")
    found = housekeeping.measure()
    assert (found.pending, found.pending_estimate) == (0, 0)


def test_up_to_the_bound_it_is_a_count(housekeeping: Housekeeping, connection: Connection) -> None:
    insert(connection, COUNTED_MAX * 3, published="i % 3 > 0")
    found = housekeeping.measure()
    assert (found.pending, found.pending_estimate) == (COUNTED_MAX, COUNTED_MAX)


@pytest.mark.parametrize(
    ("published", "error_max"),
    [
        # One topic of seven waits.
        ("i % 7 > 0", 0.05),
        ("hashint8(i) % 10 <> 0", 0.15),
        # A topic waits whose rows come a thousand at a time.
        ("i / 1000 % 5 > 0", 0.6),
    ],
)
def test_rows_between_published_ones_are_told_apart(
    housekeeping: Housekeeping, connection: Connection, published: str, error_max: float
) -> None:
    insert(connection, 400_000, published=published)
    assert error_of(housekeeping, connection) < error_max


@pytest.mark.parametrize("one_of", [3, 7, 11])
def test_status_and_the_gauges_tell_the_same_number(
    housekeeping: Housekeeping,
    connection: Connection,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    *,
    one_of: int,
) -> None:
    monkeypatch.setattr(overview, "COUNTED_MAX", COUNTED_MAX)
    insert(connection, 20_000 * one_of, published=f"hashint8(i) % {one_of} <> 0")
    engine = make_engine(database.url)
    seen = overview.look(engine, "outboxd", "outbox", "default")
    engine.dispose()
    assert seen.pending_estimate == housekeeping.measure().pending_estimate > COUNTED_MAX + 1


def test_rows_that_were_left_over_long_ago_hide_no_backlog(housekeeping: Housekeeping, connection: Connection) -> None:
    insert(connection, COUNTED_MAX + 1)
    insert(connection, 100_000, 5_000_000_000)
    assert error_of(housekeeping, connection) < 0.1


def test_ids_that_leap_make_no_nonsense(housekeeping: Housekeeping, connection: Connection) -> None:
    insert(connection, 2 * COUNTED_MAX, FIRST_ID)
    insert(connection, 2 * COUNTED_MAX)
    insert(connection, 2 * COUNTED_MAX, ID_MAX - 2 * COUNTED_MAX)
    assert error_of(housekeeping, connection) < 2
