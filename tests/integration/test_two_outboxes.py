"""Two outboxes of one schema, each with a table of its own: what is asked about one is answered by its table."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from outboxd.postgres.migrate import downgrade, upgrade
from outboxd.postgres.schema.revisions import required_revision
from tests.integration.test_roles import make_roles
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, Letters, value
from tests.support.shell import Shell, shell_on

TABLES = ["outbox_b", '"Out""box %s b"', '"pg_class"']
"""The last one is a name that means a table of PostgreSQL where no schema stands before it."""


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def first(connection: Connection) -> Letters:
    letters = Letters(connection)
    letters.acquire()
    return letters


def second_outbox(connection: Connection, table: str = "outbox_b", *, acquired: bool = True) -> Letters:
    """Another outbox in the schema, whose daemon relays a table of this (quoted) name."""
    connection.execute(f"CREATE TABLE outboxd.{table} (LIKE outboxd.outbox INCLUDING ALL)".encode())
    letters = Letters(connection, "b", table.replace("%", "%%"))
    if acquired:
        letters.acquire()
        name = table.strip('"').replace('""', '"')
        connection.execute("UPDATE outboxd.lease SET relayed_table = %s WHERE outbox = 'b'", (name,))
    return letters


# --- Replays


@pytest.mark.parametrize("table", TABLES)
def test_a_newer_row_in_the_outboxs_own_table_needs_force(connection: Connection, first: Letters, table: str) -> None:
    second = second_outbox(connection, table)
    letter = second.bury(second.enqueue(key="kk"))
    newer = second.enqueue(key="kk")
    second.publish(newer)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"such as row {newer} after"):
        connection.execute("SELECT outboxd.replay(%s)", (letter,))
    assert value(connection, "SELECT outboxd.replay(%s, force => true)", letter) == 1


@pytest.mark.parametrize("table", TABLES)
def test_newer_rows_in_the_table_of_another_outbox_are_no_obstacle(
    connection: Connection, first: Letters, table: str
) -> None:
    second = second_outbox(connection, table)
    letter = second.bury(second.enqueue(key="kk"))
    for _ in range(3):
        first.publish(first.enqueue(key="kk"))
    assert value(connection, "SELECT outboxd.replay(%s)", letter) == 1


def test_dead_letters_of_both_outboxes_are_judged_each_by_its_table(connection: Connection, first: Letters) -> None:
    second = second_outbox(connection)
    of_first, of_second = first.bury(first.enqueue(key="a")), second.bury(second.enqueue(key="b"))
    first.publish(first.enqueue(key="b"))
    newer = second.enqueue(key="b")
    second.publish(newer)
    rows = connection.execute(
        "SELECT id, newer_id, obstacle FROM outboxd.replay_obstacles(%s)", ([of_first, of_second],)
    ).fetchall()
    assert rows == [(of_second, newer, "published")]


def test_an_outbox_whose_table_is_not_known_yet_has_the_schemas_own(connection: Connection) -> None:
    letters = Letters(connection, "unknown")
    letter = letters.bury(letters.enqueue())
    letters.publish(letters.enqueue())
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="newer rows of the same key were published"):
        connection.execute("SELECT outboxd.replay(%s)", (letter,))


def test_where_the_table_is_gone_nothing_newer_can_be_excluded(connection: Connection) -> None:
    second = second_outbox(connection)
    letter, holding = second.bury(second.enqueue()), second.bury(second.enqueue(key="h"), holds_key=True)
    connection.execute("DROP TABLE outboxd.outbox_b")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot be excluded"):
        connection.execute("SELECT outboxd.replay(%s)", (letter,))
    assert value(connection, "SELECT outboxd.replay(%s)", holding) == 1
    assert connection.execute("SELECT pending FROM outboxd.status WHERE outbox = 'b'").fetchone() == (None,)


@pytest.fixture
def shell_of_b(database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return shell_on(database, monkeypatch, capsys, OUTBOXD_OUTBOX__NAME="b", OUTBOXD_OUTBOX__TABLE="outbox_b")


def test_dead_show_and_replay_go_by_the_outboxs_own_table(
    connection: Connection, first: Letters, shell_of_b: Shell
) -> None:
    second = second_outbox(connection)
    letter, other = (str(second.bury(second.enqueue(key=key))) for key in ("kk", "free"))
    second.publish(second.enqueue(key="kk"))
    first.publish(first.enqueue(key="free"))
    assert "safe to replay  yes" not in shell_of_b.ok("dead", "show", letter).out
    assert "safe to replay  yes" in shell_of_b.ok("dead", "show", other).out
    shell_of_b("dead", "replay", letter, other, "--yes")
    assert (second.status_of(int(letter)), second.status_of(int(other))) == ("dead", "replaying")


# --- The views


@pytest.mark.parametrize("table", TABLES)
def test_held_keys_are_those_of_the_table_that_the_outbox_relays(
    connection: Connection, first: Letters, table: str
) -> None:
    second = second_outbox(connection, table)
    of_first = first.enqueue(key="first")
    first.fail(of_first)
    first.enqueue(key="of no retry")
    second.enqueue(key="also of no retry")
    of_second = second.enqueue(key="second")
    second.fail(of_second)
    rows = connection.execute("SELECT outbox, key, by_outbox_id FROM outboxd.held_keys ORDER BY outbox").fetchall()
    assert rows == [("b", "second", of_second), ("default", "first", of_first)]


def test_held_keys_and_status_are_shown_also_where_a_table_has_other_types_of_text(
    connection: Connection, first: Letters
) -> None:
    second = second_outbox(connection)
    connection.execute("DROP INDEX outboxd.outbox_b_hashtextextended_id_idx")
    connection.execute("ALTER TABLE outboxd.outbox_b ALTER topic TYPE varchar(249), ALTER key TYPE varchar(100)")
    row = second.enqueue(key="second")
    second.fail(row)
    rows = connection.execute("SELECT outbox, key, by_outbox_id FROM outboxd.held_keys").fetchall()
    assert rows == [("b", "second", row)]
    shown = connection.execute("SELECT outbox, pending, held_keys FROM outboxd.status").fetchall()
    assert shown == [("b", 1, 1), ("default", 0, 0)]


def test_status_counts_what_waits_in_the_table_that_the_outbox_relays(connection: Connection, first: Letters) -> None:
    second = second_outbox(connection)
    for letters in (first, first, second, second, second):
        letters.enqueue()
    second.fail(1)
    shown = connection.execute(
        "SELECT outbox, pending, held_keys, oldest_pending_age >= interval '0' FROM outboxd.status"
    ).fetchall()
    assert shown == [("b", 3, 1, True), ("default", 2, 0, True)]


def test_who_may_not_read_the_second_table_still_has_the_views(database: Database, connection: Connection) -> None:
    connection.execute("DROP ROLE IF EXISTS looker")
    connection.execute("CREATE ROLE looker LOGIN")
    connection.execute("GRANT USAGE ON SCHEMA outboxd TO looker")
    connection.execute("GRANT SELECT ON outboxd.status, outboxd.held_keys TO looker")
    first = Letters(connection)
    first.acquire()
    first.fail(first.enqueue())
    second = second_outbox(connection)
    second.fail(second.enqueue())
    make_roles(database)
    query = "SELECT outbox, pending, (SELECT count(*) FROM outboxd.held_keys) FROM outboxd.status ORDER BY outbox"
    try:
        with database.connect("looker") as looker:
            assert looker.execute(query).fetchall() == [("b", None, 1), ("default", 1, 1)]
        make_roles(database, "outbox=outbox_b")
        connection.execute("GRANT outboxd_reader TO looker")
        with database.connect("looker") as looker:
            assert looker.execute(query).fetchall() == [("b", 1, 2), ("default", 1, 2)]
    finally:
        connection.execute("DROP OWNED BY looker, outboxd_writer, outboxd_relay, outboxd_operator, outboxd_reader")
        connection.execute("DROP ROLE looker, outboxd_writer, outboxd_relay, outboxd_operator, outboxd_reader")


# --- The migration


def test_views_and_functions_keep_grants_and_owner_over_the_upgrade_and_back(empty_database: Database) -> None:
    catalog = """
        SELECT c.relname, c.relowner, c.relacl::text FROM pg_class c
         WHERE c.relnamespace = 'outboxd'::regnamespace AND c.relkind = 'v'
        UNION ALL
        SELECT p.proname || p.proargtypes::text, p.proowner, p.proacl::text || p.prosecdef || p.proconfig::text
          FROM pg_proc p WHERE p.pronamespace = 'outboxd'::regnamespace AND p.proname LIKE 'replay%'
         ORDER BY 1"""
    upgrade(empty_database.url, "outboxd", "0005")
    with empty_database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest")
        connection.execute("GRANT SELECT ON outboxd.status, outboxd.held_keys TO guest")
        connection.execute("REVOKE ALL ON FUNCTION outboxd.replay_obstacles(bigint[]) FROM PUBLIC")
        connection.execute("GRANT EXECUTE ON FUNCTION outboxd.replay_obstacles(bigint[]) TO guest")
        before = connection.execute(catalog).fetchall()
        upgrade(empty_database.url, "outboxd")
        assert connection.execute(catalog).fetchall() == before
        downgrade(empty_database.url, "outboxd", "0005")
        assert connection.execute(catalog).fetchall() == before
        connection.execute("DROP OWNED BY guest")
        connection.execute("DROP ROLE guest")


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"])
def test_every_older_revision_is_upgraded_and_gone_back_to(empty_database: Database, revision: str) -> None:
    def definitions() -> list[tuple[object, ...]]:
        with empty_database.connect() as connection:
            return connection.execute(
                "SELECT pg_get_viewdef(c.oid), obj_description(c.oid) FROM pg_class c"
                " WHERE c.relnamespace = 'outboxd'::regnamespace AND c.relkind = 'v'"
                " UNION ALL SELECT pg_get_functiondef(p.oid), obj_description(p.oid) FROM pg_proc p"
                " WHERE p.pronamespace = 'outboxd'::regnamespace ORDER BY 1"
            ).fetchall()

    upgrade(empty_database.url, "outboxd", revision)
    before = definitions()
    assert upgrade(empty_database.url, "outboxd")[-1] == required_revision()
    after = definitions()
    downgrade(empty_database.url, "outboxd", revision)
    assert definitions() == before
    upgrade(empty_database.url, "outboxd")
    assert definitions() == after
