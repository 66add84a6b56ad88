"""What Alembic runs: the migrations, in one transaction, under a lock, in the schema that the caller names.

`outboxd.postgres.migrate` calls it with `schema` and, unless it prints SQL, `connection` and `on_wait` among the
configuration's attributes.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from outboxd.postgres.operators.sql_by_hand import sql_literal
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.schema.tables import metadata_for
from outboxd.postgres.store.lock_holders import holder_of_advisory

schema: str = context.config.attributes["schema"]
connection: Connection | None = context.config.attributes.get("connection")

# The letters of outboxd's name read as a number: a constant, so that any two migrations exclude each other.
LOCK_KEY = int.from_bytes(b"outboxd", "big")

# Whoever comes after one that waits for a lock waits too, and of the outbox that is the application. A role or
# PGOPTIONS that says how long to wait is obeyed.
LOCK_SECONDS_MAX = 3
LIMIT_LOCKS = (
    f"SELECT set_config('lock_timeout', '{LOCK_SECONDS_MAX}s', true) WHERE current_setting('lock_timeout') = '0'"
)


def wait_for_turn(connection: Connection) -> None:
    """Take the lock that only one migration has; where another has it, tell who that is before waiting for it."""
    if connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK_KEY}):
        return
    driver: Any = connection.connection.driver_connection
    context.config.attributes["on_wait"](holder_of_advisory(driver, LOCK_KEY))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


context.configure(
    connection=connection,
    dialect_name=None if connection is not None else "postgresql",
    target_metadata=metadata_for(schema),
    version_table="alembic_version",
    version_table_schema=schema,
    include_schemas=True,
    transaction_per_migration=False,
    literal_binds=connection is None,
    # The driver's own style of parameters would double each percent sign of a name where nothing halves it again.
    dialect_opts={"paramstyle": "named"} if connection is None else {},
    on_version_apply=context.config.attributes.get("on_version_apply"),
)

# CREATE SCHEMA IF NOT EXISTS asks for a right on the database even where the schema exists.
with context.begin_transaction():
    if connection is None:
        output = context.get_context().impl.static_output
        output(f"SELECT pg_advisory_xact_lock({LOCK_KEY});")
        name = sql_literal(quoted(schema))
        body = f"BEGIN IF to_regnamespace({name}) IS NULL THEN CREATE SCHEMA {quoted(schema)}; END IF; END"
        # Not between dollars: a schema's name may have those of any tag.
        output(f"DO {sql_literal(body)};")
        output(f"{LIMIT_LOCKS};")
    else:
        wait_for_turn(connection)
        present = connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
        if present is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted(schema).replace('%', '%%')}")
        connection.exec_driver_sql(LIMIT_LOCKS)
    context.run_migrations()
