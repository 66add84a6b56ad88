"""The columns of a table that was not made by `outboxd migrate`: types as good as its own are taken, others refused."""

from __future__ import annotations

import pytest

from outboxd.errors import SchemaError
from outboxd.postgres.checks.inspection import check_table
from outboxd.postgres.connections.engine import make_engine
from tests.support.postgres_fixtures import Database

# Each type is turned into the one of `outboxd migrate` by PostgreSQL itself.
AS_GOOD = """CREATE TABLE outboxd.other (id int, event_id uuid, topic varchar(249), key outboxd.identifier,
    payload bytea, headers json, partition smallint, created_at timestamp, available_at timestamptz,
    published_at timestamptz, published_partition bigint, published_offset int)"""


def check(database: Database) -> None:
    engine = make_engine(database.url)
    try:
        with engine.connect() as connection:
            check_table(connection, "outboxd", "other")
    finally:
        engine.dispose()


def test_a_table_whose_columns_have_types_that_cannot_be_read_is_refused_with_their_names(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE DOMAIN outboxd.identifier AS text")
        connection.execute(AS_GOOD)
        check(database)
        connection.execute("ALTER TABLE outboxd.other ALTER key TYPE uuid USING NULL, ALTER partition TYPE bigint")
    with pytest.raises(SchemaError) as refused:
        check(database)
    assert str(refused.value) == (
        'the table "outboxd"."other" has columns of other types: key is uuid instead of text, '
        "partition is bigint instead of integer: give them these types, or look at outbox.table"
    )
