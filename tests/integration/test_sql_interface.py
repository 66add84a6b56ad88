"""What people in psql have: views and functions, each as its comment promises."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.types.json import Json, Jsonb

from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, Letters, value


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def letters(connection: Connection) -> Letters:
    return Letters(connection)


# --- enqueue


@pytest.mark.parametrize(
    ("call", "parameters", "payload"),
    [
        ("enqueue('t', 'k', 'hello')", (), b"hello"),
        ("enqueue('t', 'k', 'grüße'::text)", (), "grüße".encode()),
        ("enqueue('t', 'k', '{\"a\": 1}'::jsonb)", (), b'{"a": 1}'),
        ("enqueue('t', 'k', '\\x00ff'::bytea)", (), b"\x00\xff"),
        ("enqueue('t', 'k', NULL)", (), None),
        ("enqueue('t', 'k', '')", (), b""),
        ("enqueue(topic => 't', key => 'k', payload => 'named')", (), b"named"),
        ("enqueue('t', 'k', %s)", ("as text",), b"as text"),
        ("enqueue('t', 'k', %s)", (b"\xfe",), b"\xfe"),
        ("enqueue('t', 'k', %s)", (Jsonb([1]),), b"[1]"),
        ("enqueue('t', 'k', %s)", (Json({"b": 1, "a": 2}),), b'{"b": 1, "a": 2}'),
        ("enqueue('t', 'k', json_build_object('a', 1))", (), b'{"a" : 1}'),
        ("enqueue(%s, %s, %s, %s)", ("t", "k", "all", '{"h": "v"}'), b"all"),
    ],
)
def test_enqueue_takes_text_bytes_and_json(
    connection: Connection, call: str, parameters: tuple[object, ...], payload: bytes | None
) -> None:
    row_id = value(connection, f"SELECT outboxd.{call}", *parameters)
    row = connection.execute("SELECT id, topic, key, payload FROM outboxd.outbox").fetchall()
    assert row == [(row_id, "t", "k", payload)]


def test_enqueue_keeps_headers_and_allows_none(connection: Connection) -> None:
    connection.execute('SELECT outboxd.enqueue(\'t\', NULL, \'x\', \'[["a", "1"], ["a", "2"]]\')')
    connection.execute("SELECT outboxd.enqueue('t', NULL, 'x', NULL)")
    rows = connection.execute("SELECT key, headers FROM outboxd.outbox ORDER BY id").fetchall()
    assert rows == [(None, [["a", "1"], ["a", "2"]]), (None, {})]


def test_enqueue_is_undone_with_the_transaction(database: Database, connection: Connection) -> None:
    with database.connect(autocommit=False) as writer:
        writer.execute("SELECT outboxd.enqueue('t', 'k', 'x')")
        writer.rollback()
    assert value(connection, "SELECT count(*) FROM outboxd.outbox") == 0


# --- readable


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, None),
        (b"", ""),
        ("grüße".encode(), "grüße"),
        (b"\xff\x00", "\\xff00"),
        (b"text with \x00", "\\x74657874207769746820" + "00"),
        (b"a" * 1000, "a" * 1000),
        (b"a" * 1001, "a" * 1000 + "…"),
        (("é" * 5000).encode(), "é" * 1000 + "…"),
        (b"x" + "𝄞".encode() * 5000, "x" + "𝄞" * 999 + "…"),
        (b"\xff" * 5000, "\\x" + "ff" * 500 + "…"),
    ],
)
def test_any_bytes_are_readable(connection: Connection, content: bytes | None, shown: str | None) -> None:
    assert value(connection, "SELECT outboxd.readable(%s::bytea)", content) == shown


@pytest.mark.parametrize(
    ("characters_max", "shown"),
    [("2147483647", "text"), ("NULL", "text"), ("2", "te…"), ("0", "…"), ("-1", "…"), ("-2147483648", "…")],
)
def test_what_is_readable_is_cut_at_any_number(connection: Connection, characters_max: str, shown: str) -> None:
    assert value(connection, f"SELECT outboxd.readable('text', {characters_max})") == shown


# --- views


def test_status_of_a_fresh_schema_has_one_row_without_anything(connection: Connection) -> None:
    cursor = connection.execute("SELECT * FROM outboxd.status")
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert rows == [
        {
            "outbox": "default", "pending": 0, "pending_is_lower_bound": False, "oldest_pending_at": None,
            "oldest_pending_age": None, "in_retry": 0, "dead": 0, "dead_is_lower_bound": False, "replaying": 0,
            "held_keys": 0, "held_keys_is_lower_bound": False, "lease_holder": None, "lease_expires_at": None,
            "paused": None,
        }
    ]  # fmt: skip


def test_status_counts_what_waits_and_says_where_it_stops(connection: Connection, letters: Letters) -> None:
    letters.acquire()
    letters.bury(letters.enqueue(), holds_key=True)
    retried = letters.enqueue(key="r")
    connection.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " VALUES ('default', %s, 1, now(), 'REQUEST_TIMED_OUT', 'late')",
        (retried,),
    )
    connection.execute("SELECT outboxd.pause('metrics.*')")
    query = (
        "SELECT pending, pending_is_lower_bound, in_retry, dead, held_keys, lease_holder, paused,"
        " oldest_pending_age >= interval '0' FROM outboxd.status"
    )
    expected = (1, False, 1, 1, 2, "here:1", ["metrics.*"], True)
    assert connection.execute(query).fetchone() == expected
    connection.execute("INSERT INTO outboxd.outbox (topic) SELECT 't' FROM generate_series(1, 9999)")
    assert connection.execute("SELECT pending, pending_is_lower_bound FROM outboxd.status").fetchone() == (10000, False)
    letters.enqueue()
    assert connection.execute("SELECT pending, pending_is_lower_bound FROM outboxd.status").fetchone() == (10000, True)


def test_summary_groups_by_topic_error_and_reason(connection: Connection, letters: Letters) -> None:
    first = letters.bury(letters.enqueue(key="a"))
    letters.bury(letters.enqueue(key="a"))
    last = letters.bury(letters.enqueue(key=None))
    letters.bury(letters.enqueue(topic="other"), code="INVALID_HEADERS", reason="invalid")
    resolved = letters.bury(letters.enqueue())
    connection.execute("SELECT outboxd.discard(%s)", (resolved,))
    rows = connection.execute(
        "SELECT topic, error_code, reason, count, keys, sample,"
        " first = (SELECT died_at FROM outboxd.dead_letter WHERE id = %s),"
        " last = (SELECT died_at FROM outboxd.dead_letter WHERE id = %s) FROM outboxd.dead_letter_summary",
        (first, last),
    ).fetchall()
    assert rows == [
        ("orders", "MSG_SIZE_TOO_LARGE", "fatal", 3, 1, last, True, True),
        ("other", "INVALID_HEADERS", "invalid", 1, 1, last + 1, False, False),
    ]


def test_dead_letters_are_read_where_the_server_would_read_them_in_parallel(
    connection: Connection, letters: Letters
) -> None:
    for _ in range(3):
        letters.bury(letters.enqueue())
    for setting in (
        "min_parallel_table_scan_size = 0", "min_parallel_index_scan_size = 0", "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
    ):  # fmt: skip
        connection.execute(f"SET {setting}")
    plan = connection.execute("EXPLAIN SELECT count(*) FROM outboxd.dead_letter WHERE octet_length(payload) = 1")
    assert any("Parallel" in str(line) for line in plan), "nothing would be read in parallel"

    assert value(connection, "SELECT count(*) FROM outboxd.dead_letter_recent WHERE payload LIKE '%%x%%'") == 3


def test_recent_dead_letters_come_newest_first_and_readable(connection: Connection, letters: Letters) -> None:
    letters.bury(letters.enqueue(payload=b"older"))
    letters.bury(letters.enqueue(payload=b"\xff"))
    letters.bury(letters.enqueue(payload=None))
    rows = connection.execute("SELECT key, payload, payload_bytes FROM outboxd.dead_letter_recent").fetchall()
    assert rows == [("k", None, None), ("k", "\\xff", 1), ("k", "older", 5)]


def test_held_keys_say_why_and_since_when(connection: Connection, letters: Letters) -> None:
    holding = letters.enqueue(key="a")
    letters.bury(holding, holds_key=True)
    letters.bury(letters.enqueue(key="free"))
    retried = letters.enqueue(key="b")
    unkeyed = letters.enqueue(key=None)
    connection.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " SELECT 'default', unnest(%s::bigint[]), 1, now(), 'REQUEST_TIMED_OUT', 'late'",
        ([retried, unkeyed],),
    )
    rows = connection.execute(
        "SELECT outbox, topic, key, why, by_outbox_id, error_code, since <= now() FROM outboxd.held_keys ORDER BY key"
    ).fetchall()
    assert rows == [
        ("default", "orders", "a", "dead letter", holding, "MSG_SIZE_TOO_LARGE", True),
        ("default", "orders", "b", "retry", retried, "REQUEST_TIMED_OUT", True),
    ]


# --- replay


def test_replay_takes_a_dead_letter_once_and_keeps_who_when_and_why(connection: Connection, letters: Letters) -> None:
    letter = letters.bury(letters.enqueue())
    assert value(connection, "SELECT outboxd.replay(%s, note => 'limit raised')", letter) == 1
    assert value(connection, "SELECT outboxd.replay(%s, note => 'again')", letter) == 0
    row = connection.execute(
        "SELECT status, resolved_by, resolved_at = died_at OR resolved_at > died_at, note FROM outboxd.dead_letter"
    ).fetchone()
    assert row == ("replaying", "postgres", True, "limit raised")


def test_the_reason_of_an_earlier_replay_outlives_the_next(connection: Connection, letters: Letters) -> None:
    letter = letters.bury(letters.enqueue())
    connection.execute("SELECT outboxd.replay(%s, note => 'first try')", (letter,))
    connection.execute("UPDATE outboxd.dead_letter SET status = 'dead'")
    connection.execute("SELECT outboxd.discard(%s, 'hopeless')", (letter,))
    note = value(connection, "SELECT note FROM outboxd.dead_letter")
    assert note.startswith("first try (replayed by postgres, 20")
    assert note.endswith("Z)\nhopeless")


def test_replay_of_many_counts_those_that_were_dead(connection: Connection, letters: Letters) -> None:
    ids = [letters.bury(letters.enqueue(key=None)) for _ in range(3)]
    connection.execute("SELECT outboxd.discard(%s)", (ids[0],))
    assert value(connection, "SELECT outboxd.replay(%s::bigint[])", [*ids, 999_999]) == 2
    assert value(connection, "SELECT outboxd.replay(ARRAY[]::bigint[])") == 0


def test_a_key_with_a_newer_published_row_needs_force(connection: Connection, letters: Letters) -> None:
    letters.acquire()
    letter = letters.bury(letters.enqueue())
    newer = letters.enqueue()
    assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1, "a pending newer row is no obstacle"
    connection.execute("UPDATE outboxd.dead_letter SET status = 'dead'")
    letters.publish(newer)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"such as row {newer} after") as refused:
        connection.execute("SELECT outboxd.replay(%s)", (letter,))
    assert "force => true" in str(refused.value.diag.message_hint)
    assert letters.status_of(letter) == "dead"
    assert value(connection, "SELECT outboxd.replay(%s, force => true)", letter) == 1


def test_a_newer_row_that_was_itself_replayed_counts_as_published(connection: Connection, letters: Letters) -> None:
    letters.acquire()
    older, newer = letters.bury(letters.enqueue()), letters.bury(letters.enqueue())
    connection.execute("UPDATE outboxd.dead_letter SET status = 'replayed' WHERE id = %s", (newer,))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="newer rows of the same key were published"):
        connection.execute("SELECT outboxd.replay(%s)", (older,))


@pytest.mark.parametrize(("topic", "key"), [("orders", "other"), ("other", "k"), ("orders", None)])
def test_newer_rows_of_other_keys_and_topics_are_no_obstacle(
    connection: Connection, letters: Letters, topic: str, key: str | None
) -> None:
    letters.acquire()
    letters.publish(letters.enqueue())
    letter = letters.bury(letters.enqueue())
    letters.publish(letters.enqueue(topic=topic, key=key))
    assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1


def test_a_row_without_a_key_and_one_that_holds_its_key_need_no_force(connection: Connection, letters: Letters) -> None:
    letters.acquire(deleted_through=None)
    unkeyed, holding = letters.bury(letters.enqueue(key=None)), letters.bury(letters.enqueue(), holds_key=True)
    letters.publish(letters.enqueue(key=None))
    assert value(connection, "SELECT outboxd.replay(%s::bigint[])", [unkeyed, holding]) == 2


@pytest.mark.parametrize(("deleted_beyond", "refused"), [(None, True), (1, True), (0, False)])
def test_where_published_rows_are_deleted_newer_ones_cannot_be_excluded(
    connection: Connection, letters: Letters, deleted_beyond: int | None, refused: bool
) -> None:
    row = letters.enqueue()
    letters.acquire(deleted_through=None if deleted_beyond is None else row + deleted_beyond)
    letter = letters.bury(row)
    if refused:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot be excluded: they are deleted"):
            connection.execute("SELECT outboxd.replay(%s)", (letter,))
    else:
        assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1


def test_more_rows_after_a_dead_letter_than_are_looked_at_need_force(connection: Connection, letters: Letters) -> None:
    letters.acquire()
    letter = letters.bury(letters.enqueue())
    connection.execute("INSERT INTO outboxd.outbox (topic) SELECT 't' FROM generate_series(1, 200000)")
    assert value(connection, "SELECT count(*) FROM outboxd.replay_obstacles(ARRAY[%s::bigint])", letter) == 0
    letters.enqueue(key="other")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"more than 200,000 rows follow"):
        connection.execute("SELECT outboxd.replay(%s)", (letter,))


def test_one_obstacle_refuses_the_whole_call(connection: Connection, letters: Letters) -> None:
    letters.acquire()
    good, late = letters.bury(letters.enqueue(key="a")), letters.bury(letters.enqueue(key="b"))
    letters.publish(letters.enqueue(key="b"))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="1 of 2 dead letters not replayed"):
        connection.execute("SELECT outboxd.replay(%s::bigint[])", ([good, late],))
    assert letters.status_of(good) == "dead"


def test_replays_of_the_same_rows_at_once_take_each_once(
    database: Database, connection: Connection, letters: Letters
) -> None:
    ids = [letters.bury(letters.enqueue(key=None)) for _ in range(50)]

    def replay(order: list[int]) -> int:
        with database.connect() as mine:
            return int(value(mine, "SELECT outboxd.replay(%s::bigint[])", order))

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(replay, [ids, ids[::-1], ids[25:] + ids[:25], ids]))
    assert sum(taken) == 50


def test_a_replay_tells_which_outboxes_of_what_it_took_nobody_relays(connection: Connection, letters: Letters) -> None:
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    relayed, removed, unknown = (letters.bury(letters.enqueue()) for _ in range(3))
    letters.acquire()
    Letters(connection, "removed").acquire()
    connection.execute("UPDATE outboxd.lease SET expires_at = '2026-01-31 12:00+00' WHERE outbox = 'removed'")
    for letter, outbox in ((removed, "removed"), (unknown, "unknown")):
        connection.execute("UPDATE outboxd.dead_letter SET outbox = %s WHERE id = %s", (outbox, letter))
    connection.execute("SET timezone = 'UTC'")
    assert value(connection, "SELECT outboxd.replay(%s)", relayed) == 1
    assert notices == []
    assert value(connection, "SELECT outboxd.replay(%s, force => true)", [removed, unknown]) == 2
    (notice,) = notices
    assert notice.startswith('no daemon relays the outbox "removed" (relayed last until 2026-01-31 12:00:00+00), "unkn')
    assert notice.endswith('"unknown" (never relayed) now, so what is replayed of it waits until one does')


# --- replay_where


def test_replay_where_only_looks_unless_told_to_act(connection: Connection, letters: Letters) -> None:
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    letters.bury(letters.enqueue())
    assert value(connection, "SELECT outboxd.replay_where()") == 1
    assert value(connection, "SELECT count(*) FROM outboxd.dead_letter WHERE status = 'dead'") == 1
    assert notices[0].startswith("dry run, nothing is changed: 1 would be taken, 0 of them only with force")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("topic => 'orders'", 2),
        ("topic => 'order'", 0),
        ("error_code => 'INVALID_HEADERS'", 2),
        ("topic => 'orders', error_code => 'INVALID_HEADERS'", 1),
        ("since => now() - interval '1 minute'", 3),
        ("since => now() + interval '1 minute'", 0),
        ("max_rows => 2", 2),
    ],
)
def test_replay_where_takes_what_all_its_filters_allow(
    connection: Connection, letters: Letters, filters: str, expected: int
) -> None:
    letters.bury(letters.enqueue(key=None))
    letters.bury(letters.enqueue(key=None), code="INVALID_HEADERS")
    letters.bury(letters.enqueue(topic="other", key=None), code="INVALID_HEADERS")
    assert value(connection, f"SELECT outboxd.replay_where({filters})") == expected
    assert value(connection, f"SELECT outboxd.replay_where({filters}, dry_run => false, note => 'mended')") == expected
    taken = value(connection, "SELECT count(*) FROM outboxd.dead_letter WHERE status = 'replaying' AND note = 'mended'")
    assert taken == expected


def test_replay_where_repeated_takes_all_oldest_first(connection: Connection, letters: Letters) -> None:
    ids = [letters.bury(letters.enqueue(key=None)) for _ in range(5)]
    taken = [value(connection, "SELECT outboxd.replay_where(max_rows => 2, dry_run => false)") for _ in range(4)]
    assert taken == [2, 2, 1, 0]
    assert letters.status_of(ids[0]) == "replaying"


# --- discard, guard


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_replay_where_refuses_a_negative_number_in_words(
    connection: Connection, letters: Letters, dry_run: str
) -> None:
    letters.bury(letters.enqueue())
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_rows is 0 or more, not -1"):
        connection.execute(f"SELECT outboxd.replay_where(max_rows => -1, dry_run => {dry_run})")
    assert value(connection, f"SELECT outboxd.replay_where(max_rows => 0, dry_run => {dry_run})") == 0
    assert value(connection, f"SELECT outboxd.replay_where(max_rows => NULL, dry_run => {dry_run})") == 1


def test_discard_resolves_and_says_who_and_why(connection: Connection, letters: Letters) -> None:
    letter = letters.bury(letters.enqueue(), holds_key=True)
    assert value(connection, "SELECT outboxd.discard(%s, 'test data')", letter) == 1
    assert value(connection, "SELECT outboxd.discard(%s::bigint[])", [letter]) == 0
    row = connection.execute("SELECT status, resolved_by, resolved_at IS NOT NULL, note FROM outboxd.dead_letter")
    assert row.fetchone() == ("discarded", "postgres", True, "test data")
    assert value(connection, "SELECT count(*) FROM outboxd.held_keys") == 0


def test_without_a_reason_there_is_no_note(connection: Connection, letters: Letters) -> None:
    replayed, discarded = letters.bury(letters.enqueue()), letters.bury(letters.enqueue("bills"))
    connection.execute("SELECT outboxd.replay(%s), outboxd.discard(%s)", (replayed, discarded))
    assert value(connection, "SELECT count(*) FROM outboxd.dead_letter WHERE note IS NULL AND status <> 'dead'") == 2


@pytest.mark.parametrize("status", ["replaying", "replayed", "discarded"])
def test_only_a_dead_row_can_be_mended(connection: Connection, letters: Letters, status: str) -> None:
    letter = letters.bury(letters.enqueue())
    connection.execute("UPDATE outboxd.dead_letter SET payload = 'mended', status = %s", (status,))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"dead letter {letter} is {status}"):
        connection.execute("UPDATE outboxd.dead_letter SET payload = 'late'")
    assert value(connection, "SELECT payload FROM outboxd.dead_letter") == b"mended"


def test_a_holding_row_that_was_given_a_key_with_newer_rows_needs_force(
    connection: Connection, letters: Letters
) -> None:
    letters.acquire()
    letter = letters.bury(letters.enqueue(key="held"), holds_key=True)
    newer = letters.enqueue(key="other")
    letters.publish(newer)
    connection.execute("UPDATE outboxd.dead_letter SET key = 'other'")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"such as row {newer} after"):
        connection.execute("SELECT outboxd.replay(%s)", (letter,))
    connection.execute("UPDATE outboxd.dead_letter SET key = 'held'")
    assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1


# --- pause, resume


def test_pause_and_resume_say_whether_they_changed_anything(connection: Connection) -> None:
    assert value(connection, "SELECT outboxd.pause('metrics.*', 'broker work')") is True
    assert value(connection, "SELECT outboxd.pause('metrics.*', 'again')") is False
    row = connection.execute("SELECT outbox, topic_pattern, who, note, since <= now() FROM outboxd.control").fetchone()
    assert row == ("default", "metrics.*", "postgres", "broker work", True)
    assert value(connection, "SELECT outboxd.resume('metrics')") is False
    assert value(connection, "SELECT outboxd.resume('metrics.*')") is True
    assert value(connection, "SELECT count(*) FROM outboxd.control") == 0


def test_where_several_outboxes_share_the_schema_the_one_to_pause_must_be_named(
    connection: Connection, letters: Letters
) -> None:
    letters.acquire()
    connection.execute("UPDATE outboxd.lease SET outbox = 'first'")
    assert value(connection, "SELECT outboxd.pause('a')") is True
    letters.acquire()
    with pytest.raises(psycopg.errors.AmbiguousParameter, match="default, first"):
        connection.execute("SELECT outboxd.pause('b')")
    assert value(connection, "SELECT outboxd.pause('b', outbox => 'default')") is True
    rows = connection.execute("SELECT outbox, topic_pattern FROM outboxd.control ORDER BY topic_pattern").fetchall()
    assert rows == [("first", "a"), ("default", "b")]


def test_a_pause_tells_where_no_daemon_has_relayed_the_outbox_that_is_named(
    connection: Connection, letters: Letters
) -> None:
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    assert value(connection, "SELECT outboxd.pause('early')") is True
    letters.acquire()
    assert value(connection, "SELECT outboxd.pause('a', outbox => 'typo')") is True
    assert value(connection, "SELECT outboxd.pause('a', outbox => 'default')") is True
    assert value(connection, "SELECT outboxd.pause('b')") is True
    told = 'no daemon has relayed an outbox "{}" from this schema yet, so nothing waits until one does; relayed are: {}'
    assert notices == [told.format("default", "none"), told.format("typo", "default")]


@pytest.mark.parametrize("pattern", ["", "x" * 250])
def test_a_pattern_that_no_topic_can_match_is_refused(connection: Connection, pattern: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="1 to 249 characters"):
        connection.execute("SELECT outboxd.pause(%s)", (pattern,))


# --- for whoever looks


def test_every_view_and_function_has_a_comment(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'outboxd'::regnamespace"
        " AND obj_description(p.oid, 'pg_proc') IS NULL UNION ALL"
        " SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'outboxd'::regnamespace AND c.relkind IN ('r', 'v')"
        " AND c.relname <> 'alembic_version' AND obj_description(c.oid, 'pg_class') IS NULL"
    ).fetchall()
    assert rows == []


def test_functions_do_not_follow_the_callers_search_path(connection: Connection, letters: Letters) -> None:
    letter = letters.bury(letters.enqueue())
    connection.execute("CREATE SCHEMA trap; CREATE TABLE trap.dead_letter (id bigint, status text)")
    connection.execute("CREATE TEMP TABLE dead_letter (id bigint, status text)")
    connection.execute("SET search_path = trap, public")
    assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1
    assert letters.status_of(letter) == "replaying"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT id FROM outboxd.outbox WHERE published_at IS NULL AND id > 5 ORDER BY id LIMIT 10",
            "outbox_pending_idx",
        ),
        (
            """SELECT id FROM outboxd.outbox WHERE published_at IS NULL AND key IS NOT NULL
                AND hashtextextended(key, hashtextextended(topic, 0)) = hashtextextended('k', hashtextextended('t', 0))
                ORDER BY id LIMIT 10""",
            "outbox_pending_key_idx",
        ),
        (
            """SELECT id, available_at FROM outboxd.outbox WHERE published_at IS NULL AND available_at IS NOT NULL
                AND available_at > now() - interval '1 day' AND available_at <= now() ORDER BY available_at LIMIT 10""",
            "outbox_delayed_idx",
        ),
        ("SELECT * FROM outboxd.retry WHERE outbox = 'default' AND next_attempt_at <= now() LIMIT 10", "retry_due_idx"),
        ("SELECT * FROM outboxd.dead_letter_recent LIMIT 10", "dead_letter_recent_idx"),
        ("SELECT * FROM outboxd.dead_letter_recent WHERE status = 'dead' LIMIT 10", "dead_letter_status_idx"),
        (
            "SELECT * FROM outboxd.dead_letter_recent WHERE status = 'dead' AND outboxd.topic_is(topic, 't') LIMIT 10",
            "dead_letter_topic_idx",
        ),
        (
            """SELECT * FROM outboxd.dead_letter_recent WHERE status = 'dead' AND outboxd.topic_is(topic, 't')
                AND error_code = 'C' LIMIT 10""",
            "dead_letter_kind_idx",
        ),
        (
            "SELECT * FROM outboxd.dead_letter_recent WHERE status = 'dead' AND error_code = 'C' LIMIT 10",
            "dead_letter_code_idx",
        ),
        (
            """SELECT * FROM outboxd.dead_letter WHERE outbox = 'default' AND status = 'replaying'
                ORDER BY outbox_id LIMIT 9""",
            "dead_letter_replaying_idx",
        ),
        (
            """SELECT * FROM outboxd.dead_letter WHERE holds_key AND status IN ('dead', 'replaying')
                AND outbox = 'default' ORDER BY outbox_id LIMIT 9""",
            "dead_letter_holding_idx",
        ),
    ],
)
def test_what_is_asked_often_goes_by_its_index(connection: Connection, query: str, index: str) -> None:
    # Small tables are scanned whole whatever their indexes: here it is asked whether the index can serve at all.
    connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
    plan = "\n".join(str(row[0]) for row in connection.execute(f"EXPLAIN {query}").fetchall())
    assert index in plan
    assert "Sort" not in plan
