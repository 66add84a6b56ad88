"""The roles of docs/postgresql-roles.sql: each can do its work, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from outboxd.policy.exchange.findings import Weight
from outboxd.postgres.checks.inspection import inspect
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import Letters, value
from tests.support.shell import shell_on

SCRIPT = Path(__file__).parents[2] / "docs" / "postgresql-roles.sql"
ROLES = ("writer", "relay", "operator", "reader")


# What an owner of `public` may put there: it fits a call better than PostgreSQL's own, and notes whose rights it has.
_BETTER_FITS = """
CREATE TABLE public.ran (rights name DEFAULT current_user, what text);
GRANT INSERT ON public.ran TO PUBLIC;
CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran (what) VALUES ('format'); RETURN pg_catalog.format($1, $2); END $$;
CREATE FUNCTION public.to_regclass(varchar) RETURNS regclass LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran (what) VALUES ('to_regclass'); RETURN pg_catalog.to_regclass($1::text); END $$;
CREATE FUNCTION public.is_same(name, varchar) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran (what) VALUES ('='); RETURN $1::text OPERATOR(pg_catalog.=) $2::text; END $$;
CREATE FUNCTION public.is_same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran (what) VALUES ('='); RETURN $1::text OPERATOR(pg_catalog.=) $2::text; END $$;
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = varchar, FUNCTION = public.is_same);
CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.is_same);
"""


def make_roles(database: Database, *variables: str) -> None:
    psql = database.server.installation.bin_dir / "psql"
    options = [part for variable in variables for part in ("-v", variable)]
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", *options, "--file", SCRIPT, "--dbname", database.url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def roles(database: Database) -> Iterator[Database]:
    """A migrated database where the logins `test_writer` and so on have one role each."""
    make_roles(database)
    with database.connect() as connection:
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS test_{role}")
            connection.execute(f"CREATE ROLE test_{role} LOGIN IN ROLE outboxd_{role}")
    yield database
    with database.connect() as connection:
        for role in ROLES:
            connection.execute(f"DROP OWNED BY outboxd_{role}, test_{role}")
            connection.execute(f"DROP ROLE test_{role}, outboxd_{role}")


def refused(database: Database, role: str, statements: list[str]) -> None:
    with database.connect(f"test_{role}") as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_writer_inserts_and_learns_the_id_and_no_more(roles: Database) -> None:
    with roles.connect("test_writer") as writer:
        for call in ("'text'", "'bytes'::bytea", "'{}'::jsonb"):
            writer.execute(f"SELECT outboxd.enqueue('t', 'k', {call})")
        inserted = value(writer, "INSERT INTO outboxd.outbox (topic, available_at) VALUES ('t', now()) RETURNING id")
    assert inserted == 4
    refused(
        roles, "writer",
        [
            "SELECT payload FROM outboxd.outbox",
            "UPDATE outboxd.outbox SET published_at = now()",
            "INSERT INTO outboxd.outbox (topic, published_at) VALUES ('t', now())",
            "DELETE FROM outboxd.outbox",
            "SELECT * FROM outboxd.dead_letter",
            "SELECT * FROM outboxd.status",
            "SELECT outboxd.replay(1)",
            "SELECT outboxd.pause('*')",
            "CREATE TABLE outboxd.mine ()",
        ],
    )  # fmt: skip


def test_the_relay_moves_rows_and_makes_no_tables(roles: Database) -> None:
    with roles.connect("test_relay") as relay:
        letters = Letters(relay)
        letters.acquire()
        letters.publish(letters.enqueue(key="other"))
        letter = letters.bury(letters.enqueue())
        assert value(relay, "SELECT outboxd.replay(%s)", letter) == 1
        relay.execute("DELETE FROM outboxd.outbox WHERE published_at IS NOT NULL")
        relay.execute("SELECT * FROM outboxd.status")
        assert value(relay, "SELECT version_num FROM outboxd.alembic_version")
    refused(
        roles, "relay",
        [
            "CREATE TABLE outboxd.mine ()",
            "TRUNCATE outboxd.outbox",
            "UPDATE outboxd.alembic_version SET version_num = ''",
        ],
    )  # fmt: skip


def test_the_operator_mends_replays_discards_and_pauses(roles: Database) -> None:
    with roles.connect() as owner:
        letters = Letters(owner)
        letters.acquire()
        mended, dropped = letters.bury(letters.enqueue()), letters.bury(letters.enqueue(key=None))
        rest = letters.bury(letters.enqueue(key="c"))
    with roles.connect("test_operator") as operator:
        operator.execute(
            "UPDATE outboxd.dead_letter SET payload = 'small', topic = 'orders.v2' WHERE id = %s", (mended,)
        )
        assert value(operator, "SELECT outboxd.replay(%s, note => 'mended')", mended) == 1
        assert value(operator, "SELECT outboxd.discard(%s)", dropped) == 1
        assert value(operator, "SELECT outboxd.replay_where()") == 1
        assert value(operator, "SELECT outboxd.replay_where(dry_run => false)") == 1
        assert value(operator, "SELECT outboxd.pause('a')") is True
        assert value(operator, "SELECT outboxd.resume('a')") is True
        assert value(operator, "SELECT resolved_by FROM outboxd.dead_letter WHERE id = %s", rest) == "test_operator"
        for view in ("status", "dead_letter_summary", "dead_letter_recent", "held_keys"):
            operator.execute(f"SELECT * FROM outboxd.{view}")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            operator.execute("UPDATE outboxd.dead_letter SET payload = 'late' WHERE id = %s", (mended,))
    refused(
        roles, "operator",
        [
            "UPDATE outboxd.dead_letter SET error_code = 'NONE'",
            "UPDATE outboxd.dead_letter SET attempts = 0",
            "DELETE FROM outboxd.dead_letter",
            "SELECT payload FROM outboxd.outbox",
            "DELETE FROM outboxd.outbox",
            "UPDATE outboxd.lease SET token = token + 1",
            "SELECT outboxd.enqueue('t', 'k', 'x')",
        ],
    )  # fmt: skip


def test_the_reader_uses_every_command_that_only_reads(
    roles: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with roles.connect() as owner:
        letters = Letters(owner)
        letters.acquire()
        letters.publish(letters.enqueue(key="a"))
        letters.enqueue(key="b")
        letter = letters.bury(letters.enqueue(key="a"), holds_key=True)
    shell = shell_on(roles, monkeypatch, capsys, user="test_reader")
    for command in ("status", "dead summary", "dead list", f"dead show {letter}", "dead export"):
        shell.ok(*command.split())
        if command != "dead export":
            assert shell.ok(*command.split(), "--json").document
    for command in (f"dead replay {letter} --yes", f"dead discard {letter} --yes", "pause a", "resume a", "send a"):
        denied = shell(*command.split())
        assert denied.code == 77, (command, denied.err)
        assert "Traceback" not in denied.err


def test_the_reader_sees_the_views_and_changes_nothing(roles: Database) -> None:
    with roles.connect() as owner:
        letters = Letters(owner)
        letters.bury(letters.enqueue(payload=b"\xff"), holds_key=True)
    with roles.connect("test_reader") as reader:
        assert value(reader, "SELECT count FROM outboxd.dead_letter_summary") == 1
        assert value(reader, "SELECT payload FROM outboxd.dead_letter_recent") == "\\xff"
        assert value(reader, "SELECT why FROM outboxd.held_keys") == "dead letter"
        assert value(reader, "SELECT dead FROM outboxd.status") == 1
    refused(
        roles, "reader",
        [
            "SELECT * FROM outboxd.outbox",
            "SELECT payload FROM outboxd.outbox",
            "SELECT headers FROM outboxd.outbox",
            "UPDATE outboxd.dead_letter SET status = 'discarded'",
            "SELECT outboxd.replay(1)",
            "SELECT outboxd.discard(1)",
            "SELECT outboxd.pause('*')",
        ],
    )  # fmt: skip


def test_a_daemon_without_its_grants_ends_and_names_them(roles: Database, rig: Rig) -> None:
    with roles.connect() as owner:
        owner.execute("REVOKE INSERT, UPDATE ON outboxd.lease FROM outboxd_relay")
    ended = rig.daemon(database={"url": roles.url_as("test_relay")}).run()
    assert ended.code == 77
    assert 'may not INSERT, UPDATE on "outboxd"."lease": GRANT INSERT, UPDATE ON "outboxd"."lease"' in ended.err
    assert "Traceback" not in ended.err


def test_a_daemon_to_which_row_level_security_shows_no_rows_ends_and_says_so(roles: Database, rig: Rig) -> None:
    with roles.connect() as owner:
        owner.execute("ALTER TABLE outboxd.outbox ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY writers ON outboxd.outbox TO test_writer USING (true)")
        daemon = rig.daemon(database={"url": roles.url_as("test_relay")})
        ended = daemon.run("--until-empty")
        assert ended.code == 77
        assert 'row-level security shows the role no row of "outboxd"."outbox"' in ended.err
        assert "Traceback" not in ended.err
        owner.execute("CREATE POLICY relay ON outboxd.outbox TO outboxd_relay USING (true)")
        owner.execute("SELECT outboxd.enqueue(%s, 'k', 'x')", (rig.topic(),))
        assert daemon.run("--until-empty").code == 0
        assert value(owner, "SELECT count(published_at) FROM outboxd.outbox") == 1


def test_policies_that_may_hide_rows_from_the_daemon_are_a_warning(roles: Database) -> None:
    def warnings() -> list[str]:
        engine = make_engine(roles.url_as("test_relay"))
        try:
            findings = inspect(engine, "outboxd", "outbox", "default").findings
        finally:
            engine.dispose()
        assert not any(finding.weight.is_problem for finding in findings)
        return [finding.message for finding in findings if finding.weight is Weight.WARNING]

    with roles.connect() as owner:
        owner.execute("ALTER TABLE outboxd.control ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY everything ON outboxd.control TO outboxd_relay USING (true)")
        assert warnings() == []
        owner.execute("CREATE POLICY but ON outboxd.control AS RESTRICTIVE USING (who <> 'anna')")
        assert [said.split(" is on")[0] for said in warnings()] == ['row-level security of "outboxd"."control"']


def test_a_daemon_that_cannot_ask_for_the_lease_says_why(roles: Database, rig: Rig) -> None:
    with roles.connect() as owner:
        owner.execute("ALTER ROLE test_relay SET default_transaction_read_only = on")
    daemon = rig.daemon(database={"url": roles.url_as("test_relay")})
    daemon.start()
    told = daemon.wait_for_event("database_failed", during="the question for the lease")
    assert "read-only transaction" in told["cause"]
    assert daemon.stop().code == 0


def test_what_others_made_in_public_does_not_run_with_the_rights_of_who_migrates_and_makes_the_roles(
    empty_database: Database,
) -> None:
    with empty_database.connect() as connection:
        connection.execute(_BETTER_FITS)
        upgrade(empty_database.url, "outboxd", "0008")
        upgrade(empty_database.url, "outboxd")
        make_roles(empty_database, "prefix=guarded")
        try:
            assert connection.execute("SELECT rights, what FROM public.ran").fetchall() == []
        finally:
            for role in ROLES:
                connection.execute(f"DROP OWNED BY guarded_{role}")
                connection.execute(f"DROP ROLE guarded_{role}")


def test_a_role_with_a_search_path_of_postgresqls_own_does_its_work_and_runs_nothing_of_others(
    roles: Database, rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with roles.connect() as owner:
        owner.execute(_BETTER_FITS)
        owner.execute(
            "CREATE FUNCTION public.hashtextextended(text, integer) RETURNS bigint LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'this is not PostgreSQL''s own'; END $$"
        )
        owner.execute("ALTER ROLE test_relay SET search_path = pg_catalog, pg_temp")
    daemon = rig.daemon(database={"url": roles.url_as("test_relay")}, relay={"listen": True})
    daemon.start()
    rig.insert_many([rig.topic()], 50, keys=5)
    rig.insert("no topic!", "key-1")
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter")
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    shell = shell_on(roles, monkeypatch, capsys, user="test_relay")
    for command in ("status", "dead summary", "dead list --topic orders", "dead replay 1 --dry-run"):
        shell.ok(*command.split())
    rig.check().assert_holds(dead=1)
    with roles.connect() as owner:
        assert owner.execute("SELECT rights, what FROM public.ran").fetchall() == []


def test_the_script_runs_again_and_for_any_schema_and_prefix(database: Database) -> None:
    upgrade(database.url, 'Out"box')
    for _ in range(2):
        make_roles(database, 'schema=Out"box', "prefix=other")
    with database.connect() as connection:
        assert value(connection, """SELECT has_table_privilege('other_reader', '"Out""box".status', 'SELECT')""")
        assert not value(connection, "SELECT has_table_privilege('other_reader', 'outboxd.status', 'SELECT')")
        for role in ROLES:
            connection.execute(f"DROP OWNED BY other_{role}")
            connection.execute(f"DROP ROLE other_{role}")
