"""Dead letters as the command line and the page use them, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Row

from outboxd.errors import SchemaError, UsageError
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from outboxd.postgres.operators import dead_letters as module
from outboxd.postgres.operators.dead_letter_rows import Filters
from outboxd.postgres.operators.dead_letters import DeadLetters
from tests.support.postgres_fixtures import Database
from tests.support.rows import Letters, value


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with database.connect() as opened:
        yield opened


@pytest.fixture
def rows(connection: psycopg.Connection[tuple[object, ...]]) -> Letters:
    made = Letters(connection)
    made.acquire()
    return made


@pytest.fixture
def letters(database: Database) -> Iterator[DeadLetters]:
    engine = make_engine(database.url)
    yield DeadLetters(engine, database.schema, "default")
    engine.dispose()


def test_bulk_commands_and_the_export_reach_rows_whose_ids_are_below_one(letters: DeadLetters, rows: Letters) -> None:
    below, above = (rows.bury(rows.enqueue()) for _ in range(2))
    rows.connection.execute("UPDATE outboxd.dead_letter SET outbox_id = -7 WHERE id = %s", (below,))

    assert [whole.letter.id for whole in letters.export()] == [below, above]
    (taken,) = letters.replay_where(Filters(), force=True)
    assert list(taken.ids) == [below, above]


def test_what_a_trigger_refuses_is_an_error_in_a_sentence(letters: DeadLetters, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue())
    rows.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'audited until noon'; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE ON outboxd.dead_letter FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    for change in (letters.discard, letters.replay):
        with pytest.raises(UsageError, match="PostgreSQL refuses: audited until noon"):
            change([letter])
    assert rows.status_of(letter) == "dead"


def test_the_summary_groups_by_topic_reason_and_code_largest_first(letters: DeadLetters, rows: Letters) -> None:
    for key in ("a", "b", "b"):
        newest = rows.bury(rows.enqueue(key=key))
    rows.bury(rows.enqueue("bills"), code="INVALID_HEADERS", reason="invalid")
    rows.connection.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '1 day' WHERE topic = 'bills'")
    first, second = letters.summary()
    assert (first.topic, first.reason, first.error_code) == ("orders", "fatal", "MSG_SIZE_TOO_LARGE")
    assert (first.count, first.keys, first.sample_id, first.recent) == (3, 2, newest, 3)
    assert first.first <= first.last <= datetime.now(UTC) + timedelta(minutes=1)
    assert (second.topic, second.count, second.recent) == ("bills", 1, 0)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(topic="orders"), {1, 2}),
        (Filters(error_code="INVALID_HEADERS"), {3}),
        (Filters(key="b"), {2, 3}),
        (Filters(topic="orders", key="b"), {2}),
        (Filters(reason="invalid"), {3}),
        (Filters(since=timedelta(hours=1)), {2, 3}),
        (Filters(since=datetime(2000, 1, 1, tzinfo=UTC)), {1, 2, 3}),
        (Filters(topic="ord"), set()),
        (Filters(status="discarded"), {4}),
        (Filters(status=None), {1, 2, 3, 4}),
    ],
)
def test_filters_choose_the_same_rows_for_list_summary_and_export(
    letters: DeadLetters, rows: Letters, filters: Filters, expected: set[int]
) -> None:
    rows.bury(rows.enqueue(key="a"))
    rows.connection.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '1 day'")
    rows.bury(rows.enqueue(key="b"))
    rows.bury(rows.enqueue("bills", key="b"), code="INVALID_HEADERS", reason="invalid")
    letters.discard([rows.bury(rows.enqueue("gone"))])
    assert {letter.id for letter in letters.list(filters)} == expected
    assert {whole.letter.id for whole in letters.export(filters)} == expected
    assert sum(group.count for group in letters.summary(filters)) == len(expected)


def test_the_list_has_the_newest_first_and_ends_at_the_limit(letters: DeadLetters, rows: Letters) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(5)]
    assert [letter.id for letter in letters.list(limit=2)] == [ids[4], ids[3]]


def test_dead_letters_of_another_outbox_are_neither_shown_nor_touched(letters: DeadLetters, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue())
    rows.connection.execute("UPDATE outboxd.dead_letter SET outbox = 'other'")
    assert letters.summary() == []
    assert letters.show(letter) is None
    assert letters.replay([letter]).skipped == 1
    assert letters.discard([letter]).skipped == 1
    assert rows.status_of(letter) == "dead"


def test_one_in_full_has_its_bytes_and_what_stands_against_a_replay(letters: DeadLetters, rows: Letters) -> None:
    letter = rows.bury(rows.enqueue(payload=b"\xff\x00"))
    whole = letters.show(letter)
    assert whole is not None
    assert (whole.payload, whole.letter.payload_bytes, whole.obstacle) == (b"\xff\x00", 2, None)
    newer = rows.enqueue()
    rows.publish(newer)
    whole = letters.show(letter)
    assert whole is not None
    assert whole.obstacle is not None
    assert (whole.obstacle.kind, whole.obstacle.newer_id) == ("published", newer)
    assert f"row {newer} of its key was published since" in whole.obstacle.sentence
    assert letters.show(letter + 1) is None


def test_a_replay_leaves_what_needs_force_and_names_it(letters: DeadLetters, rows: Letters) -> None:
    safe, blocked = rows.bury(rows.enqueue(key="safe")), rows.bury(rows.enqueue(key="newer"))
    rows.publish(rows.enqueue(key="newer"))
    asked = [safe, blocked, blocked + 1]
    planned = letters.replay(asked, dry_run=True)
    assert (planned.taken, planned.skipped) == (1, 1)
    assert rows.status_of(safe) == "dead"
    done = letters.replay(asked, note="the topic's limit was raised", who="anna@desk")
    assert (done.taken, [obstacle.id for obstacle in done.refused], done.skipped) == (1, [blocked], 1)
    assert (rows.status_of(safe), rows.status_of(blocked)) == ("replaying", "dead")
    noted = value(rows.connection, "SELECT note FROM outboxd.dead_letter WHERE id = %s", safe)
    assert noted == "the topic's limit was raised (asked by anna@desk)"
    assert letters.replay([blocked], force=True).taken == 1
    assert rows.status_of(blocked) == "replaying"


def test_a_bulk_replay_goes_in_batches_oldest_first_and_stops_at_the_limit(letters: DeadLetters, rows: Letters) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(7)]
    rows.bury(rows.enqueue("bills"))
    # A row can die long after its successors: the order of the outbox counts, not of death.
    rows.connection.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '1 h' WHERE id = %s", (ids[6],))
    planned = [done.taken for done in letters.replay_where(Filters(topic="orders"), batch_rows=3, dry_run=True)]
    assert planned == [3, 3, 1]
    assert {rows.status_of(each) for each in ids} == {"dead"}
    taken = [done.taken for done in letters.replay_where(Filters(topic="orders"), batch_rows=3, limit=5)]
    assert taken == [3, 2]
    assert [rows.status_of(each) for each in ids] == ["replaying"] * 5 + ["dead"] * 2
    assert sum(done.taken for done in letters.replay_where(Filters(topic="orders"), batch_rows=3)) == 2
    assert [letter.topic for letter in letters.list()] == ["bills"]


def test_a_bulk_replay_of_many_pages_takes_each_row_once(
    letters: DeadLetters, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(9)]
    monkeypatch.setattr(module, "PAGE_ROWS", 4)
    assert [done.taken for done in letters.replay_where(Filters(), batch_rows=3, limit=7)] == [3, 1, 3]
    assert [rows.status_of(each) for each in ids] == ["replaying"] * 7 + ["dead"] * 2


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 10])
def test_what_needs_force_is_passed_over_and_does_not_count_against_the_limit(
    letters: DeadLetters, rows: Letters, batch_rows: int
) -> None:
    blocked = [rows.bury(rows.enqueue(key="newer")) for _ in range(3)]
    rows.publish(rows.enqueue(key="newer"))
    safe = [rows.bury(rows.enqueue(key="safe")) for _ in range(4)]
    beyond = rows.bury(rows.enqueue(key="beyond"))
    rows.publish(rows.enqueue(key="beyond"))
    for is_dry in (True, False):
        done = list(letters.replay_where(Filters(), limit=3, batch_rows=batch_rows, dry_run=is_dry))
        assert [each for batch in done for each in batch.ids] == safe[:3]
        assert sum(batch.taken for batch in done) == 3
        # Only those that were passed over: what comes after the last that went was not asked for.
        assert [refused.id for batch in done for refused in batch.refused] == blocked
    assert [rows.status_of(each) for each in (*blocked, *safe, beyond)] == ["dead"] * 3 + ["replaying"] * 3 + [
        "dead"
    ] * 2
    (forced,) = letters.replay_where(Filters(), limit=2, force=True)
    assert (forced.ids, forced.refused) == (blocked[:2], ())
    assert sum(done.taken for done in letters.discard_where(Filters(), limit=1, batch_rows=batch_rows)) == 1
    assert [rows.status_of(each) for each in (blocked[2], safe[3], beyond)] == ["discarded", "dead", "dead"]


@pytest.mark.parametrize("verb", ["replay_where", "discard_where"])
def test_a_bulk_command_with_a_limit_takes_others_for_those_that_somebody_else_resolved_meanwhile(
    letters: DeadLetters, rows: Letters, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(4)]
    ask = letters._rows

    def ask_while_another_discards(sql: str, *arguments: str, **values: Any) -> Sequence[Row[Any]]:
        found = ask(sql, *arguments, **values)
        if sql == module._PAGE:
            rows.connection.execute("SELECT outboxd.discard(%s)", (ids[0],))
        return found

    monkeypatch.setattr(letters, "_rows", ask_while_another_discards)
    (taken,) = getattr(letters, verb)(Filters(), limit=2)
    assert taken.ids == ids[1:3]


def test_a_bulk_replay_does_not_chase_what_dies_meanwhile(letters: DeadLetters, rows: Letters) -> None:
    for _ in range(3):
        rows.bury(rows.enqueue())
    taken = 0
    for done in letters.replay_where(Filters(), batch_rows=1):
        taken += done.taken
        rows.bury(rows.enqueue(key=None))
    assert taken == 3


def test_a_newer_row_published_between_the_look_and_the_replay_is_a_refusal(
    letters: DeadLetters, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = rows.bury(rows.enqueue())
    rows.publish(rows.enqueue())
    monkeypatch.setattr(letters, "obstacles", lambda _ids: [])
    with pytest.raises(UsageError, match=r"newer rows of the same key were published since.*--force"):
        letters.replay([letter])
    assert rows.status_of(letter) == "dead"


def test_discarding_resolves_with_who_and_why(letters: DeadLetters, rows: Letters) -> None:
    ids = [rows.bury(rows.enqueue()) for _ in range(3)]
    assert letters.discard([ids[0]], dry_run=True).taken == 1
    assert rows.status_of(ids[0]) == "dead"
    assert letters.discard([ids[0]], note="a test order").taken == 1
    assert letters.discard([ids[0]]).skipped == 1
    assert sum(done.taken for done in letters.discard_where(Filters(topic="orders"), batch_rows=1)) == 2
    assert {rows.status_of(each) for each in ids} == {"discarded"}


def test_an_export_reads_large_payloads_few_at_a_time(
    letters: DeadLetters, rows: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = [b"", None, b"x" * 900, b"y" * 2000, b"z"]
    for payload in payloads:
        rows.bury(rows.enqueue(payload=payload))
    monkeypatch.setattr(module, "EXPORT_BATCH_BYTES", 1000)
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    assert [whole.payload for whole in letters.export()] == payloads


def test_any_name_of_a_schema_will_do(empty_database: Database) -> None:
    schema = 'Out"b:ox :id'
    upgrade(empty_database.url, schema)
    engine = make_engine(empty_database.url)
    letters = DeadLetters(engine, schema, "default")
    try:
        assert letters.summary() == []
        assert letters.list(Filters(topic="t", key="k", since=timedelta(hours=1))) == []
        assert letters.show(1) is None
        assert letters.replay([1]).skipped == 1
        assert list(letters.discard_where(Filters())) == []
    finally:
        engine.dispose()


def test_without_tables_the_message_says_to_migrate(empty_database: Database) -> None:
    engine = make_engine(empty_database.url)
    try:
        with pytest.raises(SchemaError, match="outboxd migrate"):
            DeadLetters(engine, "outboxd", "default").summary()
    finally:
        engine.dispose()
