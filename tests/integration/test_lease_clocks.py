"""The database's clock is set while a lease is held: neither waits a standby longer for it, nor takes it too early.

The server's clock is everybody's, so what is set is a function that stands before PostgreSQL's own in the search path.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.children import wait_for
from tests.support.lease_keepers import keeper_of
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

TTL_SECONDS = 2.0
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.error (by interval NOT NULL);
INSERT INTO clock.error VALUES ('0');
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + by FROM clock.error';
"""

SEEN_SINCE = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND query LIKE '%%transaction_read_only%%' AND state = 'idle' AND query_start > %s)
"""


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with database.connect() as connection:
        connection.execute(CLOCK)
        connection.execute(f'ALTER DATABASE "{database.name}" SET search_path = clock, pg_catalog, public')
        yield connection


def set_clock(connection: psycopg.Connection[tuple[object, ...]], error: str) -> None:
    connection.execute("UPDATE clock.error SET by = %s::interval", (error,))


def test_the_clock_is_set_back_after_an_owner_died_and_a_standby_waits_for_the_ttl_alone(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    set_clock(connection, "1 hour")
    with keeper_of(database, daemon="dies:1", ttl_seconds=TTL_SECONDS) as dies:
        dies.granted()
        row = connection.execute("SELECT holder, token, expires_at, renewed_at FROM outboxd.lease").fetchone()
    assert row is not None
    # It died instead of giving the lease up.
    connection.execute("UPDATE outboxd.lease SET holder = %s, token = %s, expires_at = %s, renewed_at = %s", row)
    set_clock(connection, "0")

    began_at = time.monotonic()
    with keeper_of(database, daemon="next:1", ttl_seconds=10.0) as standby:
        assert standby.granted() == 2
    assert time.monotonic() - began_at >= TTL_SECONDS


def test_the_clock_is_set_back_after_an_owner_gave_the_lease_up_and_nobody_waits(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    set_clock(connection, "1 hour")
    with keeper_of(database, daemon="ends:1", ttl_seconds=60.0) as ends:
        ends.granted()
    set_clock(connection, "0")

    with keeper_of(database, daemon="next:1", ttl_seconds=60.0) as standby:
        assert standby.granted() == 2


def test_the_clock_is_set_forward_and_a_standby_that_watched_leaves_the_owner_its_lease(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    def wait_until(query: str, *parameters: object, what: str) -> None:
        wait_for(lambda: bool(value(connection, query, *parameters)), timeout_seconds=10, what=what)

    with keeper_of(database, daemon="owner:1", ttl_seconds=TTL_SECONDS) as owner:
        token = owner.granted()
        with keeper_of(database, daemon="standby:1", ttl_seconds=TTL_SECONDS) as standby:
            for hours in (1, 2, 3):
                former = value(connection, "SELECT renewed_at FROM outboxd.lease")
                wait_until("SELECT renewed_at > %s FROM outboxd.lease", former, what="the lease is renewed")
                renewed_at = value(connection, "SELECT pg_catalog.clock_timestamp()")
                wait_until(SEEN_SINCE, renewed_at, what="the standby has seen that")
                set_clock(connection, f"{hours} hours")
                wait_until(
                    "SELECT expires_at > pg_catalog.clock_timestamp() + make_interval(hours => %s) FROM outboxd.lease",
                    hours,
                    what="the lease is renewed, or taken, by the clock that was set",
                )
            assert value(connection, "SELECT daemon FROM outboxd.lease") == "owner:1"
            assert value(connection, "SELECT token FROM outboxd.lease") == token
            assert standby.events.empty()
