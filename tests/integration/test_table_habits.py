"""What `check` says of a table that was changed in ways of which the server says nothing."""

from __future__ import annotations

import re

import pytest
from psycopg import sql
from psycopg.errors import UndefinedTable
from sqlalchemy import event

from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.postgres.checks.inspection import inspect
from outboxd.postgres.connections.engine import make_engine
from tests.support.postgres_fixtures import Database

PUBLISHED = "CREATE PUBLICATION everything FOR ALL TABLES"
OWN_SEQUENCE = "ALTER TABLE outboxd.outbox ALTER id DROP IDENTITY; CREATE SEQUENCE outboxd.ids"
AS_DEFAULT = "ALTER TABLE outboxd.outbox ALTER id SET DEFAULT nextval('outboxd.ids')"


def findings(database: Database, table: str = "outbox", schema: str = "outboxd") -> list[Finding]:
    engine = make_engine(database.url)
    try:
        found = inspect(engine, schema, table, "default").findings
    finally:
        engine.dispose()
    return [finding for finding in found if finding.weight is not Weight.FINE]


def told(database: Database, table: str = "outbox") -> list[tuple[Weight, str]]:
    return [(finding.weight, finding.message) for finding in findings(database, table)]


@pytest.mark.parametrize(
    ("change", "weight", "words"),
    [
        (
            f"{PUBLISHED}; ALTER TABLE outboxd.outbox REPLICA IDENTITY NOTHING",
            Weight.MISCONFIGURED,
            '"outboxd"."outbox" is published without a replica identity',
        ),
        (
            f"{PUBLISHED}; ALTER TABLE outboxd.lease DROP CONSTRAINT lease_pkey",
            Weight.MISCONFIGURED,
            '"outboxd"."lease" is published without a replica identity',
        ),
        ("ALTER TABLE outboxd.retry SET UNLOGGED", Weight.WARNING, '"outboxd"."retry" is unlogged'),
        ("ALTER TABLE outboxd.outbox DROP CONSTRAINT outbox_pkey", Weight.WARNING, "nothing keeps the ids"),
        ("ALTER TABLE outboxd.outbox ALTER event_id DROP NOT NULL", Weight.WARNING, "event_id of .* may be null"),
        ("ALTER TABLE outboxd.outbox ALTER id SET CACHE 50", Weight.WARNING, "each session draws 50 ids"),
        (f"{OWN_SEQUENCE} CACHE 20; {AS_DEFAULT}", Weight.WARNING, "each session draws 20 ids"),
    ],
)
def test_a_change_that_costs_rows_their_marks_or_their_order_is_told(
    database: Database, change: str, weight: Weight, words: str
) -> None:
    with database.connect() as connection:
        connection.execute(change)
    [(found, message)] = told(database)
    assert found is weight
    assert re.search(words, message)


def test_what_does_no_harm_is_not_told(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(f"{PUBLISHED}; {OWN_SEQUENCE}; {AS_DEFAULT}")
        connection.execute("ALTER TABLE outboxd.retry REPLICA IDENTITY FULL")
        connection.execute("CREATE TABLE outboxd.outbox_b (LIKE outboxd.outbox INCLUDING ALL)")
        connection.execute("CREATE UNLOGGED TABLE public.unlogged (id int)")
    assert told(database) == []
    assert told(database, "outbox_b") == []


@pytest.mark.parametrize("schema", ["relayed", 'Out "of" the\'Box %s'])
def test_a_renamed_schema_is_told_and_what_is_told_mends_it(database: Database, schema: str) -> None:
    with database.connect() as connection:
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("ALTER SCHEMA outboxd RENAME TO {}").format(name))
        insert = sql.SQL("INSERT INTO {}.outbox (topic, payload) VALUES ('orders', 'x')").format(name)
        with pytest.raises(UndefinedTable):
            connection.execute(insert)

        [finding] = findings(database, schema=schema)
        assert finding.weight is Weight.MISCONFIGURED
        assert f"the functions of the schema {schema!r} look for its tables in another" in finding.message

        select = finding.remedy.partition("psql: ")[2].removesuffix(" \\gexec")
        for quotes_all in ("off", "on"):
            connection.execute(f"SET quote_all_identifiers = {quotes_all}")
            for (statement,) in connection.execute(select.encode()).fetchall():
                connection.execute(str(statement).encode())
            connection.execute(insert)
            assert findings(database, schema=schema) == []


def test_rights_and_columns_of_a_table_are_asked_for_once(database: Database) -> None:
    engine = make_engine(database.url)
    asked: list[tuple[str, object]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, parameters: dict[str, object], *___: object) -> None:
        asked.append((statement, parameters.get("full")))

    try:
        inspect(engine, "outboxd", "outbox", "default")
    finally:
        engine.dispose()
    of_rights = [full for statement, full in asked if "row_security_active" in statement]
    assert '"outboxd"."outbox"' in of_rights
    assert len(of_rights) == len(set(of_rights))
    of_columns = [statement for statement, _ in asked if "pg_attribute" in statement and "attisdropped" in statement]
    assert len(of_columns) == 1
