"""`outboxd migrate` as a shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outboxd.errors import ConfigError
from outboxd.postgres.migrate import print_sql, upgrade
from outboxd.postgres.schema.revisions import required_revision
from tests.support.children import wait_for
from tests.support.postgres_fixtures import Database
from tests.support.rows import value


def migrate(
    url: str, *arguments: str, schema: str = "outboxd", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outboxd", "migrate", *arguments],
        env=environment(url, schema) | (env or {}), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def environment(url: str, schema: str = "outboxd") -> dict[str, str]:
    clean = {name: setting for name, setting in os.environ.items() if not name.startswith(("OUTBOXD_", "CREDENTIALS_"))}
    return clean | {"OUTBOXD_DATABASE__URL": url, "OUTBOXD_DATABASE__SCHEMA": schema}


def test_migrate_makes_the_tables_says_so_and_then_has_nothing_to_do(empty_database: Database) -> None:
    done = migrate(empty_database.url, schema='Out"box')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "applied 0001"
    assert done.stdout.splitlines()[-1] == f'schema Out"box: now at revision {required_revision()}'
    with empty_database.connect() as connection:
        assert value(connection, """SELECT "Out""box".enqueue('t', 'k', 'hello')""") == 1
    again = migrate(empty_database.url, schema='Out"box')
    assert again.stdout == f'schema Out"box: already at revision {required_revision()}\n'


def test_migrate_names_what_it_made_once_and_somebody_dropped_since(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("DROP VIEW outboxd.held_keys CASCADE")
    done = migrate(database.url)
    assert done.returncode == 0
    assert done.stdout == f"schema outboxd: already at revision {required_revision()}\n"
    assert "views or functions are missing that `outboxd migrate` made: held_keys, status" in done.stderr
    assert "pg_dump" in done.stderr


def test_a_schema_of_a_newer_version_is_left_alone_in_a_sentence(empty_database: Database) -> None:
    migrate(empty_database.url)
    with empty_database.connect() as connection:
        connection.execute("UPDATE outboxd.alembic_version SET version_num = '9999'")
    done = migrate(empty_database.url)
    assert done.returncode == 78
    assert "has revision 9999, which this version of outboxd does not know" in done.stderr
    assert "bug" not in done.stderr


def test_a_migrate_that_waits_for_another_says_so_and_for_whom(empty_database: Database, tmp_path: Path) -> None:
    told = tmp_path / "stderr"
    with empty_database.connect(autocommit=False) as first, told.open("w") as stderr:
        pid = first.info.backend_pid
        # What `migrate --sql` begins with, so that psql and the command exclude each other.
        first.execute(next(line for line in print_sql("outboxd").splitlines() if "pg_advisory_xact_lock" in line))
        second = subprocess.Popen(
            [sys.executable, "-m", "outboxd", "migrate"],
            env=environment(empty_database.url), stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
        try:
            wait_for(lambda: told.read_text().endswith("\n"), timeout_seconds=30, what="the second says that it waits")
            first.rollback()
            out, _ = second.communicate(timeout=60)
        finally:
            second.kill()
    whose = f"the transaction of process {pid} holds it (idle in transaction, "
    assert told.read_text().startswith(f"waiting for the lock of another migration of this database: {whose}")
    assert told.read_text().endswith(" s old)\n")
    assert (second.returncode, out.splitlines()[0]) == (0, "applied 0001")


@pytest.mark.parametrize("whose", ["another program's", "restored without its data"])
def test_a_schema_that_has_such_tables_and_no_revision_is_told_in_a_sentence(
    empty_database: Database, whose: str
) -> None:
    if whose == "restored without its data":
        upgrade(empty_database.url, "outboxd")
    with empty_database.connect() as connection:
        if whose == "restored without its data":
            connection.execute("DELETE FROM outboxd.alembic_version")
        else:
            connection.execute("CREATE SCHEMA outboxd")
            connection.execute("CREATE TABLE outboxd.outbox (id bigint)")
    done = migrate(empty_database.url)
    assert done.returncode == 78
    assert 'has already what is to be made there: relation "outbox" already exists' in done.stderr
    assert "alembic_version" in done.stderr
    assert "CREATE" not in done.stderr


def test_migrate_sql_prints_sql_only_and_needs_no_server() -> None:
    done = migrate("postgresql://nobody@127.0.0.1:1/none", "--sql", schema="mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == print_sql("mine").rstrip() + "\n"


def test_migrate_sql_of_a_database_with_tables_prints_its_upgrade_which_psql_runs(empty_database: Database) -> None:
    upgrade(empty_database.url, "outboxd", "0003")
    done = migrate(empty_database.url, "--sql")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == print_sql("outboxd", "0003").rstrip() + "\n"
    psql = empty_database.server.installation.bin_dir / "psql"
    subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", empty_database.url],
        input=done.stdout, text=True, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert migrate(empty_database.url).stdout == f"schema outboxd: already at revision {required_revision()}\n"
    nothing = migrate(empty_database.url, "--sql").stdout
    assert "CREATE TABLE" not in nothing
    assert f"from {required_revision()} to revision {required_revision()}" in nothing


def test_migrate_sql_needs_no_right_to_make_a_schema_that_is_there(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS owner_of_one")
        connection.execute("CREATE ROLE owner_of_one LOGIN")
        connection.execute("CREATE SCHEMA outboxd AUTHORIZATION owner_of_one")
    psql = empty_database.server.installation.bin_dir / "psql"
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", empty_database.url_as("owner_of_one")],
        input=print_sql("outboxd"), text=True, check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    with empty_database.connect() as connection:
        assert value(connection, "SELECT outboxd.enqueue('t', 'k', 'hello')") == 1
        connection.execute("DROP OWNED BY owner_of_one")
        connection.execute("DROP ROLE owner_of_one")


def test_migrate_sql_of_an_empty_database_begins_there(empty_database: Database) -> None:
    assert migrate(empty_database.url, "--sql").stdout == print_sql("outboxd").rstrip() + "\n"


def test_migrate_sql_from_a_named_revision_needs_no_server(empty_database: Database) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    assert migrate(nowhere, "--sql", "--from", "0004").stdout == print_sql("outboxd", "0004").rstrip() + "\n"
    upgrade(empty_database.url, "outboxd")
    whole = migrate(empty_database.url, "--sql", "--from", "base")
    assert whole.stdout == print_sql("outboxd").rstrip() + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--sql", "--from", "nine"], "knows no revision 'nine': it knows base"), (["--from", "0001"], "give both")],
)
def test_a_wrong_from_is_told_with_what_may_be_given(arguments: list[str], words: str) -> None:
    done = migrate("postgresql://nobody@127.0.0.1:1/none", *arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert words in done.stderr


def test_migrate_sql_of_a_schema_of_a_newer_version_says_so(empty_database: Database) -> None:
    migrate(empty_database.url)
    with empty_database.connect() as connection:
        connection.execute("UPDATE outboxd.alembic_version SET version_num = '9999'")
    done = migrate(empty_database.url, "--sql")
    assert (done.returncode, done.stdout) == (78, "")
    assert "has revision 9999, which this version of outboxd does not know" in done.stderr


@pytest.mark.parametrize(
    ("user", "dbname", "code", "words"),
    [
        ("postgres", "absent", 78, "has no such database"),
        ("powerless", None, 77, "permission denied"),
    ],
)
def test_a_refusal_is_told_in_a_sentence(
    empty_database: Database, user: str, dbname: str | None, code: int, words: str
) -> None:
    with empty_database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS powerless")
        connection.execute("CREATE ROLE powerless LOGIN")
    done = migrate(empty_database.server.url(dbname or empty_database.name, user))
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_migration_that_a_deadlock_ends_is_told_as_that_and_changed_nothing(empty_database: Database) -> None:
    upgrade(empty_database.url, "outboxd", "0003")
    # It looks for a deadlock first, and so is the one that ends; the rival has some seconds to come.
    url = f"{empty_database.url}?options=-c%20deadlock_timeout%3D3s%20-c%20lock_timeout%3D30s"
    with (
        empty_database.connect(autocommit=False) as rival,
        empty_database.connect() as watcher,
        ThreadPoolExecutor(1) as beside,
    ):
        rival.execute("SET deadlock_timeout = '1min'")
        rival.execute("LOCK TABLE outboxd.lease IN ACCESS SHARE MODE")
        migrating = beside.submit(migrate, url)
        wait_for(
            lambda: value(watcher, "SELECT 'lease'::text IN (SELECT c.relname FROM pg_locks AS l"
                                   " JOIN pg_class AS c ON c.oid = l.relation WHERE NOT l.granted)"),
            timeout_seconds=30, what="the migration has the table of retries and waits for that of the lease",
        )  # fmt: skip
        rival.execute("SELECT FROM outboxd.retry")
        done = migrating.result()
    assert (done.returncode, done.stdout) == (69, "")
    assert "for the sake of another session: deadlock detected" in done.stderr
    assert migrate(empty_database.url).stdout.startswith("applied 0004\n")


def test_a_server_that_is_away_is_told_without_the_password(empty_database: Database) -> None:
    done = migrate("postgresql://app:s3cret@127.0.0.1:1/none")
    assert done.returncode == 69
    assert "PostgreSQL is not available" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_separate_password_is_used_where_the_url_has_none(empty_database: Database) -> None:
    done = migrate(empty_database.url, env={"OUTBOXD_DATABASE__PASSWORD": "an@odd/one#"})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "url",
    [
        "postgres+psycopg://app:s3cret@h/d", "postgresql://app:s3cret%ZZ@h/d", "postgresql://app:s3cret%00@h/d",
        "postgresql://app:s3cret@[::1/d", "postgresql://app:s3cret@h/d?foo=bar", "postgresql://app:s3cret@h/d?x",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_a_mistake_in_the_configuration_and_not_repeated(url: str) -> None:
    done = migrate(url)
    assert done.returncode == 78
    assert "OUTBOXD_DATABASE__URL: database.url: the value is " in done.stderr
    assert "s3cret" not in done.stderr


def test_upgrading_by_a_url_that_cannot_be_read_is_told_in_a_sentence_too() -> None:
    with pytest.raises(ConfigError, match=r"database\.url cannot be read") as told:
        upgrade("postgresql://app:s3cret%ZZ@h/d", "outboxd")
    assert "s3cret" not in str(told.value)
