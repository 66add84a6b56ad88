"""Housekeeping against PostgreSQL: it removes what is past its retention and nothing else, in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import event

from outboxd.maintenance.purge import LeftoversPurge, Pace, PublishedPurge
from outboxd.policy.rows.records import FIRST_ID
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from outboxd.postgres.upkeep.due import STEP_ROWS, STEPS_MAX, OldestDue
from outboxd.postgres.upkeep.housekeeping import COUNTED_MAX, KINDS_MAX, LOOKED_AT_MAX, Housekeeping, Kind
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, Letters, value

DAY_SECONDS = 86_400.0


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


def publish(
    connection: Connection, rows: int, *, created: str = "2 days", published: str | None = "2 days"
) -> list[int]:
    """Rows created and published so long ago; None: pending."""
    found = connection.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload, created_at, published_at)"
        " SELECT 'orders', 'k', 'x', now() - %s::interval, now() - %s::interval FROM generate_series(1, %s)"
        " RETURNING id",
        (created, published, rows),
    ).fetchall()
    return [int(row[0]) for row in found]


def left(connection: Connection) -> list[int]:
    return [int(row[0]) for row in connection.execute("SELECT id FROM outboxd.outbox ORDER BY id").fetchall()]


def purge(housekeeping: Housekeeping, batch_rows: int = 5) -> PublishedPurge:
    return PublishedPurge(housekeeping, Pace(threading.Event(), rest_share=0.0), batch_rows=batch_rows)


def test_published_rows_go_by_the_time_of_publishing_and_pending_ones_stay(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    publish(connection, 7)
    pending = publish(connection, 6, published=None)
    late = publish(connection, 3, published="1 hour")
    publish(connection, 8)
    fresh = publish(connection, 4, created="1 hour", published="1 hour")
    assert purge(housekeeping).run(DAY_SECONDS) == 15
    assert left(connection) == pending + late + fresh


def test_the_walk_ends_where_rows_are_too_young_to_be_due(housekeeping: Housekeeping, connection: Connection) -> None:
    publish(connection, 5)
    young = publish(connection, 5, created="1 hour", published="1 hour")
    first = housekeeping.remove_published(FIRST_ID, 5, DAY_SECONDS)
    assert (first.removed, first.at_end) == (5, False)
    second = housekeeping.remove_published(first.last_id, 5, DAY_SECONDS)
    assert (second.removed, second.first_kept_id, second.at_end) == (0, young[0], True)


def test_an_empty_outbox_is_walked_in_one_step(housekeeping: Housekeeping) -> None:
    walked = housekeeping.remove_published(FIRST_ID, 5, DAY_SECONDS)
    assert (walked.removed, walked.last_id, walked.first_kept_id, walked.at_end) == (0, FIRST_ID, None, True)


def test_a_replay_learns_how_far_published_rows_were_removed(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    Letters(connection).acquire(deleted_through=0)
    ids = publish(connection, 3)
    publish(connection, 1, created="1 hour", published="1 hour")
    purge(housekeeping).run(DAY_SECONDS)
    assert value(connection, "SELECT deleted_through FROM outboxd.lease") == ids[-1]


def test_a_daemon_that_deletes_everything_keeps_saying_so(housekeeping: Housekeeping, connection: Connection) -> None:
    Letters(connection).acquire(deleted_through=None)
    publish(connection, 3)
    purge(housekeeping).run(DAY_SECONDS)
    assert value(connection, "SELECT deleted_through FROM outboxd.lease") is None


def test_a_locked_row_costs_the_purge_a_second_and_the_application_nothing(
    housekeeping: Housekeeping, database: Database, connection: Connection
) -> None:
    from outboxd.errors import DatabaseUnavailableError

    (row_id,) = publish(connection, 1)
    with database.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM outboxd.outbox WHERE id = %s FOR UPDATE", (row_id,))
        with pytest.raises(DatabaseUnavailableError):
            purge(housekeeping).run(DAY_SECONDS)
    assert left(connection) == [row_id]


def test_resolved_dead_letters_go_and_the_others_stay(housekeeping: Housekeeping, connection: Connection) -> None:
    letters = Letters(connection)
    letters.acquire(deleted_through=0)
    buried = [letters.bury(letters.enqueue()) for _ in range(5)]
    replayed, discarded, young, dead, replaying = buried
    connection.execute(
        "UPDATE outboxd.dead_letter SET status = CASE id WHEN %s THEN 'discarded' WHEN %s THEN 'dead'"
        " WHEN %s THEN 'replaying' ELSE 'replayed' END,"
        " resolved_at = now() - CASE id WHEN %s THEN interval '1 hour' ELSE interval '2 days' END",
        (discarded, dead, replaying, young),
    )
    removed = LeftoversPurge(housekeeping, Pace(threading.Event(), rest_share=0.0), batch_rows=1).run(DAY_SECONDS)
    assert removed["dead_letter"] == 2
    rows = connection.execute("SELECT id FROM outboxd.dead_letter ORDER BY id").fetchall()
    assert [row[0] for row in rows] == [young, dead, replaying]
    # What was published by a replay can no longer be seen: a replay of an older row has to know.
    assert value(connection, "SELECT deleted_through FROM outboxd.lease") == replayed


def test_a_dead_letter_resolved_by_hand_goes_a_retention_after_it_was_found(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    letters = Letters(connection)
    buried = [letters.bury(letters.enqueue()) for _ in range(4)]
    connection.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '9 days'")
    connection.execute("UPDATE outboxd.dead_letter SET status = 'replayed' WHERE id = ANY(%s)", (buried[:2],))
    connection.execute("UPDATE outboxd.dead_letter SET status = 'discarded' WHERE id = %s", (buried[2],))
    leftovers = LeftoversPurge(housekeeping, Pace(threading.Event(), rest_share=0.0), batch_rows=1)
    # The first purge only learns that they are resolved: what was done by hand can be seen as long as all else.
    assert leftovers.run(DAY_SECONDS)["dead_letter"] == 0
    connection.execute("UPDATE outboxd.dead_letter SET resolved_at = resolved_at - interval '2 days'")
    assert leftovers.run(DAY_SECONDS)["dead_letter"] == 3
    rows = connection.execute("SELECT id, resolved_at FROM outboxd.dead_letter").fetchall()
    assert rows == [(buried[3], None)]


def test_retries_that_belong_to_nothing_go(housekeeping: Housekeeping, connection: Connection) -> None:
    letters = Letters(connection)
    pending, published, gone, replaying, young = (letters.enqueue(key=f"k{number}") for number in range(5))
    for row_id in (pending, published, gone, replaying, young):
        connection.execute(
            "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, first_failed_at, error_code,"
            " error_message) VALUES ('default', %s, 1, now(), now() - %s::interval, 'X', 'x')",
            (row_id, "1 second" if row_id == young else "1 hour"),
        )
    letters.publish(published)
    connection.execute("DELETE FROM outboxd.outbox WHERE id = ANY(%s)", ([gone, young],))
    letter = letters.bury(replaying)
    connection.execute("SELECT outboxd.replay(%s, force => true)", (letter,))
    assert housekeeping.remove_orphaned_retries(10) == 2
    rows = connection.execute("SELECT outbox_id FROM outboxd.retry ORDER BY outbox_id").fetchall()
    assert [row[0] for row in rows] == [pending, replaying, young]


def test_old_starts_go_but_for_the_latest_hundred(housekeeping: Housekeeping, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO outboxd.start (outbox, daemon, started_at)"
        " SELECT 'default', 'here:1', now() - interval '60 days' FROM generate_series(1, 130)"
    )
    assert housekeeping.remove_old_starts(20) == 20
    assert housekeeping.remove_old_starts(20) == 10
    assert housekeeping.remove_old_starts(20) == 0
    assert value(connection, "SELECT count(*) FROM outboxd.start") == 100


def test_an_idle_outbox_measures_nothing(housekeeping: Housekeeping) -> None:
    found = housekeeping.measure()
    assert (found.pending, found.oldest_pending_seconds, found.in_retry, found.kinds) == (0, 0.0, 0, ())


def test_an_idle_outbox_is_not_asked_since_when_its_oldest_row_is_due(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    asked: list[str] = []
    event.listen(
        housekeeping._engine,
        "before_cursor_execute",
        lambda _connection, _cursor, text, *_: asked.append(text),
    )
    housekeeping.measure()
    idle = len(asked)
    publish(connection, 1, published=None)
    housekeeping.measure()
    assert idle < len(asked) - idle
    assert not any("due_at" in text for text in asked[:idle])
    assert any("due_at" in text for text in asked[idle:])


def test_what_is_pending_is_counted_up_to_a_bound_with_the_age_of_the_oldest_that_is_due(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    connection.execute("INSERT INTO outboxd.outbox (topic, available_at) VALUES ('later', now() + interval '1 hour')")
    publish(connection, COUNTED_MAX + 5, created="1 minute", published=None)
    found = housekeeping.measure()
    assert found.pending == COUNTED_MAX + 1
    assert 60 <= found.oldest_pending_seconds < 120


def test_a_row_that_waited_for_its_time_is_as_old_as_it_is_due(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO outboxd.outbox (topic, created_at, available_at)"
        " VALUES ('later', now() - interval '1 day', now() - interval '10 s')"
    )
    assert 10 <= housekeeping.measure().oldest_pending_seconds < 60


@pytest.mark.parametrize("created_at", ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31"])
def test_a_row_of_any_time_is_measured_and_hides_no_other(
    housekeeping: Housekeeping, connection: Connection, created_at: str
) -> None:
    connection.execute("INSERT INTO outboxd.outbox (topic, created_at) VALUES ('odd', %s)", (created_at,))
    alone = housekeeping.measure()
    assert (alone.pending, alone.oldest_pending_seconds > 1) == (1, created_at.endswith("BC"))
    publish(connection, 1, created="1 minute", published=None)
    both = housekeeping.measure()
    assert (both.pending, both.oldest_pending_seconds >= 60) == (2, True)


def schedule(connection: Connection, rows: int) -> None:
    """Rows that wait for a later time."""
    connection.execute(
        "INSERT INTO outboxd.outbox (topic, available_at)"
        " SELECT 'later', now() + interval '1 day' FROM generate_series(1, %s)",
        (rows,),
    )


@pytest.mark.parametrize("available", ["NULL", "now() - interval '2 hours'"])
def test_a_due_row_is_found_behind_many_that_wait_for_their_time(
    housekeeping: Housekeeping, connection: Connection, available: str
) -> None:
    schedule(connection, 3 * STEP_ROWS)
    assert housekeeping.measure().oldest_pending_seconds == 0
    connection.execute(
        "INSERT INTO outboxd.outbox (topic, created_at, available_at)"
        f" VALUES ('due', now() - interval '2 hours', {available})".encode()
    )
    for _ in range(6):
        assert 7_200 <= housekeeping.measure().oldest_pending_seconds < 7_300
    publish(connection, 1, created="1 hour", published=None)
    connection.execute("UPDATE outboxd.outbox SET published_at = now() WHERE topic = 'due'")
    assert 3_600 <= housekeeping.measure().oldest_pending_seconds < 3_700


def test_what_one_look_does_not_reach_later_ones_do(database: Database, connection: Connection) -> None:
    schedule(connection, (STEPS_MAX + 2) * STEP_ROWS)
    publish(connection, 1, created="1 hour", published=None)
    engine = make_engine(database.url)
    try:
        search = OldestDue(engine, "outboxd", "outbox")
        found = [search.at() is not None for _ in range(3)]
    finally:
        engine.dispose()
    assert found == [False, True, True]


def test_what_one_look_does_not_reach_is_found_where_its_last_row_has_the_id_zero(
    database: Database, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO outboxd.outbox (id, topic, available_at) OVERRIDING SYSTEM VALUE"
        " SELECT n, 'later', now() + interval '1 day' FROM generate_series(%s::int, 0) AS n",
        (1 - 2 * STEP_ROWS,),
    )
    schedule(connection, STEPS_MAX * STEP_ROWS)
    publish(connection, 1, created="1 hour", published=None)
    engine = make_engine(database.url)
    try:
        search = OldestDue(engine, "outboxd", "outbox")
        found = [search.at() is not None for _ in range(2)]
    finally:
        engine.dispose()
    assert found == [False, True]


def test_a_row_that_comes_late_among_those_that_wait_for_their_time_is_found(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    schedule(connection, 2 * STEP_ROWS + 5)
    publish(connection, 1, created="1 hour", published=None)
    assert 3_600 <= housekeeping.measure().oldest_pending_seconds < 3_700
    connection.execute(
        "UPDATE outboxd.outbox SET available_at = NULL, created_at = now() - interval '2 hours' WHERE id = 15000"
    )
    assert 7_200 <= max(housekeeping.measure().oldest_pending_seconds for _ in range(2)) < 7_300
    assert 7_200 <= housekeeping.measure().oldest_pending_seconds < 7_300


def test_dead_letters_of_more_kinds_than_are_told_apart_are_all_counted(
    housekeeping: Housekeeping, connection: Connection
) -> None:
    def bury(first: int, last: int, outbox: str = "default") -> None:
        connection.execute(
            "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, created_at, attempts, reason,"
            " error_code, error_message) SELECT %s, n, gen_random_uuid(), 'topic-' || n, now(), 1, 'fatal', 'X', 'x'"
            " FROM generate_series(%s::int, %s::int) AS n",
            (outbox, first, last),
        )

    bury(1, KINDS_MAX)
    found = housekeeping.measure()
    assert (len(found.kinds), found.other_dead, found.other_dead_is_more) == (KINDS_MAX, 0, False)
    bury(KINDS_MAX + 1, 3_000)
    bury(5_000, 5_100, "another")
    found = housekeeping.measure()
    assert sum(kind.rows for kind in found.kinds) + found.other_dead == 3_000
    assert not found.other_dead_is_more
    bury(10_000, 10_000 + LOOKED_AT_MAX)
    assert housekeeping.measure().other_dead_is_more


def test_dead_letters_are_counted_by_topic_and_error_code(housekeeping: Housekeeping, connection: Connection) -> None:
    letters = Letters(connection)
    buried = [
        letters.bury(letters.enqueue(topic, key=None), code=code)
        for topic, code in (("a", "X"), ("a", "X"), ("a", "Y"), ("b", "X"), ("c", "X"))
    ]
    connection.execute("SELECT outboxd.discard(%s)", (buried[-1],))
    connection.execute("UPDATE outboxd.dead_letter SET outbox = 'other' WHERE id = %s", (buried[-2],))
    kinds = housekeeping.measure().kinds
    assert sorted(kinds, key=lambda kind: (kind.topic, kind.error_code)) == [
        Kind("a", "X", 2, buried[1]),
        Kind("a", "Y", 1, buried[2]),
    ]


def test_kinds_are_found_without_reading_every_dead_letter(housekeeping: Housekeeping, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, created_at, attempts, reason, error_code,"
        " error_message) SELECT 'default', n, gen_random_uuid(), 'orders', now(), 1, 'fatal', 'X', 'x'"
        " FROM generate_series(1, 30000) AS n"
    )
    connection.execute("ANALYZE outboxd.dead_letter")
    (kind,) = housekeeping.measure().kinds
    assert (kind.rows, kind.sample_id, kind.is_more) == (COUNTED_MAX, 30_000, True)


def test_any_names_of_schema_and_table_will_do(empty_database: Database) -> None:
    schema = 'Out:"box'
    upgrade(empty_database.url, schema)
    engine = make_engine(empty_database.url)
    try:
        housekeeping = Housekeeping(engine, schema, "outbox", "default")
        assert housekeeping.measure().pending == 0
        assert housekeeping.remove_published(FIRST_ID, 10, 1.0).at_end
        assert (housekeeping.remove_resolved(10, 1.0), housekeeping.remove_orphaned_retries(10)) == (0, 0)
        assert housekeeping.remove_old_starts(10) == 0
    finally:
        engine.dispose()
