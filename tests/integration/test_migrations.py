"""The schema that the migrations make is the one that the code expects, whatever its name."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from outboxd.errors import DatabaseUnavailableError, SchemaError
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.migrate import downgrade, print_sql, upgrade
from outboxd.postgres.schema.names import wakeup_channel
from outboxd.postgres.schema.revisions import check_schema, required_revision
from outboxd.postgres.schema.tables import metadata_for
from tests.support.postgres_fixtures import Database

NASTY = 'Out"box $outboxd$ :x %s {y} é'

# Everything that makes a schema what it is, one line an object, without the schema's name.
_CATALOG = """
WITH it AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull
       || ' ' || a.attidentity::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace IN (SELECT oid FROM it) AND c.relkind = 'r'
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace IN (SELECT oid FROM it)
UNION ALL
SELECT 'constraint ' || c.conname || ' ' || pg_get_constraintdef(c.oid) FROM pg_constraint c
 WHERE c.connamespace IN (SELECT oid FROM it) AND c.contype <> 'n'
"""
_BEHAVIOUR = """
UNION ALL
SELECT 'options ' || c.relname || ' ' || array_to_string(c.reloptions, ',') FROM pg_class c
 WHERE c.relnamespace IN (SELECT oid FROM it) AND c.reloptions IS NOT NULL
UNION ALL
SELECT 'view ' || c.relname || ' ' || pg_get_viewdef(c.oid) FROM pg_class c
 WHERE c.relnamespace IN (SELECT oid FROM it) AND c.relkind = 'v'
UNION ALL
SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace IN (SELECT oid FROM it)
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace IN (SELECT oid FROM it) AND NOT t.tgisinternal
UNION ALL
SELECT 'comment ' || coalesce(c.relname, p.proname) || ' ' || d.objsubid || ' ' || d.description FROM pg_description d
  LEFT JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND c.oid = d.objoid
  LEFT JOIN pg_proc p ON d.classoid = 'pg_proc'::regclass AND p.oid = d.objoid
 WHERE c.relnamespace IN (SELECT oid FROM it) OR p.pronamespace IN (SELECT oid FROM it)
"""


def catalog_of(database: Database, schema: str, *, tables_only: bool = False) -> list[str]:
    """The objects of the schema, sorted, with `@` for its name."""
    with database.connect() as connection:
        rows = connection.execute(_CATALOG + ("" if tables_only else _BEHAVIOUR), {"schema": schema}).fetchall()
        quoted = sql.Identifier(schema).as_string(connection)
    plain = [str(row[0]).replace(quoted + ".", "@.").replace(f" {schema}.", " @.") for row in rows]
    lines = sorted(re.sub(r"(search_path TO ')[^\n]*(', 'pg_temp)", r"\1@\2", line) for line in plain)
    return [line for line in lines if "alembic_version" not in line]


def engine_of(database: Database) -> Engine:
    return create_engine(make_url(database.url).set(drivername="postgresql+psycopg"), poolclass=NullPool)


@pytest.mark.parametrize("schema", ["outboxd", NASTY])
def test_upgrade_makes_the_schema_of_the_metadata(empty_database: Database, schema: str) -> None:
    applied = upgrade(empty_database.url, schema)
    assert applied[-1] == required_revision()
    with engine_of(empty_database).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: name == schema if kind == "schema" else True,
                "include_object": lambda _, name, __, ___, ____: name != "alembic_version",
                "compare_server_default": True,
            },
        )
        differences = compare_metadata(context, metadata_for(schema))
    # Comments are for people in psql; only the migrations have them.
    assert [it for it in differences if "comment" not in str(it[0] if isinstance(it, tuple) else it[0][0])] == []


def test_the_metadata_alone_makes_the_same_columns_indexes_and_constraints(empty_database: Database) -> None:
    upgrade(empty_database.url, "migrated")
    with engine_of(empty_database).begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA described")
        metadata_for("described").create_all(connection)
    expected = catalog_of(empty_database, "migrated", tables_only=True)
    assert len(expected) > 80
    assert catalog_of(empty_database, "described", tables_only=True) == expected


@pytest.mark.parametrize("schema", ["outboxd", NASTY])
def test_down_leaves_nothing_and_up_again_makes_the_same(empty_database: Database, schema: str) -> None:
    upgrade(empty_database.url, schema)
    before = catalog_of(empty_database, schema)
    downgrade(empty_database.url, schema)
    assert catalog_of(empty_database, schema) == []
    upgrade(empty_database.url, schema)
    assert catalog_of(empty_database, schema) == before


def test_a_second_upgrade_does_nothing(empty_database: Database) -> None:
    assert upgrade(empty_database.url, "outboxd") != []
    assert upgrade(empty_database.url, "outboxd") == []


@pytest.mark.parametrize("schema", ["outboxd", NASTY])
def test_printed_sql_run_by_psql_makes_the_same_schema(empty_database: Database, schema: str) -> None:
    psql = empty_database.server.installation.bin_dir / "psql"
    subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", empty_database.url],
        input=print_sql(schema), text=True, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    printed = catalog_of(empty_database, schema)
    with engine_of(empty_database).connect() as connection:
        check_schema(connection, schema)
    downgrade(empty_database.url, schema)
    upgrade(empty_database.url, schema)
    assert catalog_of(empty_database, schema) == printed


def test_migrations_at_once_wait_for_each_other(empty_database: Database) -> None:
    script = f"from outboxd.postgres.migrate import upgrade; print(len(upgrade({empty_database.url!r}, 'outboxd')))"
    with engine_of(empty_database).connect() as blocker:
        # Each first waits for this lock, then for one another: none can finish before all have begun.
        blocker.exec_driver_sql("CREATE SCHEMA outboxd")
        runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
        wait_for_blocked_backends(empty_database, 3)
        blocker.rollback()
    applied = sorted(int(run.communicate(timeout=60)[0]) for run in runs)
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert applied[:2] == [0, 0]
    assert applied[2] >= 1


def test_a_migration_gives_up_where_a_long_transaction_has_a_table_and_nobody_waits_behind_it(
    empty_database: Database,
) -> None:
    upgrade(empty_database.url, "outboxd", "0008")
    before = catalog_of(empty_database, "outboxd")
    with empty_database.connect(autocommit=False) as long, empty_database.connect() as writer:
        long.execute("LOCK TABLE outboxd.dead_letter IN ROW EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailableError, match="did not give a lock in time"), explained():
            upgrade(empty_database.url, "outboxd")
        writer.execute("SET lock_timeout = '1s'")
        writer.execute("DELETE FROM outboxd.dead_letter")
    assert catalog_of(empty_database, "outboxd") == before
    assert upgrade(empty_database.url, "outboxd") == ["0009", "0010", "0011", "0012", "0013", "0014"]


def test_a_limit_of_the_roles_own_is_obeyed(empty_database: Database) -> None:
    upgrade(empty_database.url, "outboxd", "0008")
    with empty_database.connect(autocommit=False) as long:
        long.execute("LOCK TABLE outboxd.dead_letter IN ROW EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError), explained():
            upgrade(f"{empty_database.url}?options=-c%20lock_timeout%3D100ms", "outboxd")
        assert time.monotonic() - began < 2


def wait_for_blocked_backends(database: Database, count: int) -> None:
    deadline = time.monotonic() + 60
    with database.connect() as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            if row == (count,):
                return
            time.sleep(0.05)
    raise AssertionError(f"{count} backends were to wait for a lock, {row} do")


def test_a_role_that_owns_the_schema_needs_no_right_on_the_database(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS schema_owner")
        connection.execute("CREATE ROLE schema_owner LOGIN")
        connection.execute("CREATE SCHEMA outboxd AUTHORIZATION schema_owner")
    upgrade(empty_database.url_as("schema_owner"), "outboxd")
    with engine_of(empty_database).connect() as connection:
        check_schema(connection, "outboxd")


def test_a_missing_schema_is_told_with_the_command_to_run(empty_database: Database) -> None:
    with (
        engine_of(empty_database).connect() as connection,
        pytest.raises(SchemaError, match=r"has no outboxd tables: run `outboxd migrate`"),
    ):
        check_schema(connection, "outboxd")


def test_an_unknown_revision_is_told_as_newer(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("UPDATE outboxd.alembic_version SET version_num = 'from the future'")
    with (
        engine_of(database).connect() as connection,
        pytest.raises(SchemaError, match=r"does not know.*install the version"),
    ):
        check_schema(connection, "outboxd")


def test_a_key_and_topic_of_any_length_can_be_inserted_and_die(database: Database) -> None:
    with database.connect() as connection:
        # Random text: what compresses well would fit into an index entry after all.
        long = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) n)"
        connection.execute(f"INSERT INTO outboxd.outbox (topic, key) VALUES ({long}, {long})")
        connection.execute(
            "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, created_at, attempts, reason,"
            " error_code, error_message) SELECT 'default', id, event_id, topic, key, created_at, 1, 'invalid',"
            " 'INVALID_TOPIC', 'too long' FROM outboxd.outbox"
        )
        count = connection.execute("SELECT count(*) FROM outboxd.dead_letter").fetchone()
    assert count == (1,)


def test_only_a_listening_lease_is_notified_of_an_insert(database: Database) -> None:
    with database.connect() as listener, database.connect() as writer:
        listener.execute("LISTEN outboxd_default")
        lease = (
            "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at, listening)"
            " VALUES ('default', gen_random_uuid(), 'here:1', 1, now() + %s::interval, %s)"
            " ON CONFLICT (outbox, shard)"
            " DO UPDATE SET expires_at = excluded.expires_at, listening = excluded.listening"
        )
        for ttl, listening, expected in (("1 minute", False, 0), ("-1 s", True, 0), ("1 minute", True, 1)):
            writer.execute(lease, (ttl, listening))
            writer.execute("INSERT INTO outboxd.outbox (topic) SELECT 't' FROM generate_series(1, 10)")
            # A round trip brings what was sent before it, so no time is waited for what must not come.
            listener.execute("SELECT 1")
            heard = list(listener.notifies(timeout=2 if expected else 0, stop_after=1))
            assert len(heard) == expected, (ttl, listening)


def test_a_writer_without_rights_on_the_lease_wakes_the_relay(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS plain_writer")
        connection.execute("CREATE ROLE plain_writer LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA outboxd TO plain_writer")
        connection.execute("GRANT INSERT ON outboxd.outbox TO plain_writer")
    with database.connect("plain_writer") as writer:
        writer.execute("INSERT INTO outboxd.outbox (topic, payload) VALUES ('t', 'x')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("SELECT * FROM outboxd.lease")


@pytest.mark.parametrize("outbox", ["default", "x" * 55, "x" * 56, "é" * 27, "é" * 28, "long" * 100])
def test_any_name_of_an_outbox_has_a_channel_that_both_sides_know(database: Database, outbox: str) -> None:
    with database.connect() as connection:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(wakeup_channel(outbox))))
        connection.execute(
            "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at, listening)"
            " VALUES (%s, gen_random_uuid(), 'here:1', 1, now() + interval '1 minute', true)",
            (outbox,),
        )
        connection.execute("INSERT INTO outboxd.outbox (topic) VALUES ('t')")
        heard = [notice.channel for notice in connection.notifies(timeout=2, stop_after=1)]
    assert heard == [wakeup_channel(outbox)]
