"""The start log: whoever begins to relay learns how the owner before ended, and of nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from outboxd.policy.careful import Opening
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.starts import StartLog
from tests.support.children import wait_for
from tests.support.lease_keepers import keeper_of
from tests.support.postgres_fixtures import Database

SECONDS_MAX = 20.0
TAKE = """
INSERT INTO outboxd.lease (outbox, shard, holder, daemon, token, expires_at)
VALUES ('default', 0, %(holder)s, 'here', 1, now() + interval '1 hour')
ON CONFLICT (outbox, shard) DO UPDATE SET holder = excluded.holder, token = lease.token + 1
"""


@contextmanager
def start_log(database: Database, daemon: str) -> Iterator[StartLog]:
    """One daemon's; it dies at the end, without a word."""
    engine = make_engine(database.url)
    log = StartLog(engine, "outboxd", "default", daemon)
    try:
        yield log
    finally:
        log.close()
        engine.dispose()


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with database.connect(autocommit=True) as connection:
        yield connection


def take(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    """Somebody acquires the lease: return as which holder."""
    holder = str(uuid.uuid4())
    connection.execute(TAKE, {"holder": holder})
    return holder


def opening_of(log: StartLog, holder: str) -> Opening:
    log.owned(holder)
    wait_for(lambda: log.opening() is not None, timeout_seconds=SECONDS_MAX, what="how the owner before ended")
    opening = log.opening()
    assert opening is not None
    return opening


def record(log: StartLog, *record_ids: int) -> None:
    log.write(record_ids)
    wait_for(log.is_written, timeout_seconds=SECONDS_MAX, what="what is in the air is recorded")


def test_who_begins_learns_what_the_owner_before_had_in_the_air_though_a_late_one_stood_between(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    frozen = take(connection)
    with start_log(database, "frozen") as late, start_log(database, "successor") as successor:
        assert opening_of(successor, take(connection)).was_clean
        # The one before woke, or its database answers again: its lease is gone.
        late.owned(frozen)
        record(late, 9)
        record(successor, 1, 2)

    with start_log(database, "third") as third:
        opening = opening_of(third, take(connection))
    assert (opening.was_clean, opening.suspects) == (False, frozenset({1, 2}))
    assert late.opening() is None


def test_who_lost_the_lease_and_has_it_again_knows_that_it_did_not_die(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    with start_log(database, "here") as log:
        assert opening_of(log, take(connection)).was_clean
        assert opening_of(log, take(connection)).was_clean

    rows = connection.execute("SELECT clean, published_ids FROM outboxd.start ORDER BY id").fetchall()
    assert rows == [(True, None), (False, None)]


def test_who_loses_the_lease_during_care_and_has_it_again_suspects_what_it_suspected_until_care_is_over(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    with start_log(database, "died") as died:
        opening_of(died, take(connection))
        record(died, 1, 2)
    with start_log(database, "here") as log:
        assert opening_of(log, take(connection)).suspects == {1, 2}
        record(log, 2, 3)
        again = opening_of(log, take(connection))
        assert (again.was_clean, again.suspects) == (False, frozenset({2, 3}))
        record(log)
        assert opening_of(log, take(connection)).was_clean

    rows = connection.execute("SELECT clean, published_ids FROM outboxd.start ORDER BY id").fetchall()
    assert rows == [(False, [1, 2]), (True, None), (True, None), (False, None)]


def test_care_goes_on_with_the_lease_taken_again_though_nobody_was_suspected_and_nothing_recorded_yet(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    with start_log(database, "died") as died:
        opening_of(died, take(connection))
    with start_log(database, "here") as log:
        for _ in range(2):
            opening = opening_of(log, take(connection))
            assert (opening.was_clean, opening.suspects) == (False, frozenset())


WAITING = """
CREATE FUNCTION public.wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.daemon = 'slow' THEN
        PERFORM pg_advisory_xact_lock(1);
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER wait_for_test BEFORE INSERT ON outboxd.start FOR EACH ROW EXECUTE FUNCTION public.wait_for_test();
"""


def test_nobody_takes_the_lease_while_the_start_of_the_owner_before_is_being_written(
    database: Database, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    connection.execute(WAITING)
    connection.execute("SELECT pg_advisory_lock(1)")
    slow_holder = take(connection)
    connection.execute("UPDATE outboxd.lease SET expires_at = now()")
    with start_log(database, "slow") as slow:
        slow.owned(slow_holder)
        wait_for(
            lambda: connection.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").rowcount > 0,
            timeout_seconds=SECONDS_MAX,
            what="the start is being written",
        )
        with keeper_of(database) as next_owner, start_log(database, "next") as successor:
            next_owner.granted()
            holder = connection.execute("SELECT holder::text FROM outboxd.lease").fetchone()
            assert holder is not None
            assert opening_of(successor, str(holder[0])).was_clean
            record(successor, 1, 2)
            connection.execute("SELECT pg_advisory_unlock(1)")
            wait_for(
                lambda: slow.under_way.seconds() == 0.0, timeout_seconds=SECONDS_MAX, what="the slow one has its answer"
            )
    daemons = connection.execute("SELECT daemon FROM outboxd.start ORDER BY id").fetchall()
    assert daemons == [("next",)]
