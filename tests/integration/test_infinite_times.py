"""Times that somebody wrote by hand and that Python, or arithmetic, has not: each fetch and each load goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboxd.policy.blame.outcomes import Retry
from outboxd.policy.faults import fault_of
from outboxd.postgres.checks.other_outboxes import waiting_replays
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.operators.dead_letter_copies import DeadLetterCopyRows
from outboxd.postgres.operators.dead_letters import DeadLetters
from outboxd.postgres.operators.overview import look
from tests.contract.stores import PostgresBench
from tests.support.postgres_fixtures import Database
from tests.support.rows import Letters

TIMES = ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31"]


@pytest.fixture
def bench(database: Database) -> Iterator[PostgresBench]:
    made = PostgresBench(database)
    yield made
    made.close()


def fail(bench: PostgresBench) -> int:
    token = bench.take_over()
    row = bench.insert("orders")
    bench.settle(token, retries=[(row, Retry(fault_of(10), "later", 1, 60.0))])
    return row


@pytest.mark.parametrize("at", TIMES)
def test_a_retry_of_any_time_is_listed_once_it_is_due_and_known_to_the_next_owner(
    bench: PostgresBench, at: str
) -> None:
    row = fail(bench)
    bench.execute("UPDATE outboxd.retry SET next_attempt_at = %s", at)

    fetched = bench.fetch()
    (holder,) = bench.load().holders

    is_due = at in ("-infinity", "4713-01-01 BC")
    assert list(fetched.due_ids) == ([row] if is_due else [])
    assert (holder.outbox_id, holder.due_in_seconds == 0) == (row, is_due)
    if is_due:
        assert list(bench.fetch(retry_cursor=fetched.retry_cursor).due_ids) == []


@pytest.mark.parametrize("at", TIMES)
def test_a_row_may_have_failed_and_a_topic_may_be_paused_since_any_time(
    bench: PostgresBench, database: Database, at: str
) -> None:
    row = fail(bench)
    bench.pause("orders")
    bench.execute("UPDATE outboxd.retry SET first_failed_at = %s, next_attempt_at = now()", at)
    bench.execute("UPDATE outboxd.control SET since = %s", at)

    fetched = bench.fetch()
    loaded = bench.load()

    assert list(fetched.due_ids) == [holder.outbox_id for holder in loaded.holders] == [row]
    assert [pause.topic_pattern for pause in fetched.pauses] == ["orders"]
    assert list(loaded.pauses) == list(fetched.pauses)
    engine = make_engine(database.url)
    overview = look(engine, "outboxd", "outbox", "default")
    engine.dispose()
    assert (overview.in_retry, overview.held_keys, len(overview.paused)) == (1, 1, 1)


@pytest.mark.parametrize("at", TIMES)
def test_a_lease_that_somebody_ended_or_kept_by_hand_is_told(bench: PostgresBench, database: Database, at: str) -> None:
    bench.take_over()
    bench.execute("UPDATE outboxd.lease SET acquired_at = %s, expires_at = %s", at, at)

    engine = make_engine(database.url)
    lease = look(engine, "outboxd", "outbox", "default").lease
    engine.dispose()

    assert lease is not None
    assert lease.alive == (at in ("infinity", "294276-12-31"))


@pytest.mark.parametrize("at", ["-infinity", "4713-01-01 BC"])
def test_replays_of_an_outbox_whose_lease_somebody_ended_by_hand_are_told(database: Database, at: str) -> None:
    with database.connect() as connection:
        rows = Letters(connection, "removed")
        connection.execute("SELECT outboxd.replay(%s)", (rows.bury(rows.enqueue()),))
        rows.acquire()
        connection.execute("UPDATE outboxd.lease SET expires_at = %s", (at,))
    engine = make_engine(database.url)
    with engine.connect() as asking:
        (found,) = waiting_replays(asking, "outboxd", "default")
    engine.dispose()
    assert found.message.startswith("the outbox removed has been relayed by nobody since ")


@pytest.mark.parametrize("at", TIMES)
def test_a_dead_letter_of_any_time_is_shown_exported_and_copied_once(database: Database, at: str) -> None:
    with database.connect() as connection:
        rows = Letters(connection)
        letter = rows.bury(rows.enqueue())
        connection.execute(
            "UPDATE outboxd.dead_letter SET first_failed_at = %s, died_at = %s, resolved_at = %s, copied_at = NULL",
            (at, at, at),
        )
    engine = make_engine(database.url)
    letters = DeadLetters(engine, "outboxd", "default")
    copies = DeadLetterCopyRows(engine, "outboxd", "default")

    assert [group.count for group in letters.summary()] == [1]
    assert [found.id for found in letters.list()] == [letter]
    shown = letters.show(letter)
    assert shown is not None
    assert [whole.letter for whole in letters.export()] == [shown.letter]
    waiting = copies.waiting()
    assert [copy.id for copy in waiting] == [letter]
    copies.copied(waiting)
    assert copies.waiting() == []
    engine.dispose()


def test_a_dead_letter_that_nobody_resolved_has_no_time_of_that(database: Database) -> None:
    with database.connect() as connection:
        rows = Letters(connection)
        letter = rows.bury(rows.enqueue())
    engine = make_engine(database.url)

    shown = DeadLetters(engine, "outboxd", "default").show(letter)

    assert shown is not None
    assert shown.letter.resolved_at is None
    engine.dispose()
