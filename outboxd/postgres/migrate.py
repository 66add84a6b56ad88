"""The schema of outboxd: made, upgraded, printed and checked, by Alembic from `migrations/`.

The daemon itself never changes the schema: it calls `revisions.check_schema`, which says what to run, and so has no
need of Alembic.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from outboxd.errors import BugError, OutboxdError, UsageError
from outboxd.postgres.connections.engine import Driver, connection_string, open_driver
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.schema.revisions import (
    current_revision,
    known_revisions,
    migrations_path,
    refuse_unknown,
    required_revision,
)

# Whoever migrates has many rights. A function or an operator that another made in `public`, and that fits a call better
# than PostgreSQL's own, would run with them.
_OWN_PATH = "SET LOCAL search_path = pg_catalog, pg_temp"


def _wait_silently(_holder: str | None) -> None:
    pass


def upgrade(
    database: str | Engine | Connection,
    schema: str,
    revision: str = "head",
    *,
    password: str = "",
    on_wait: Callable[[str | None], None] = _wait_silently,
) -> list[str]:
    """Bring the schema to `revision`, making it where it is missing; safe to run several times, and at once.

    Args:
        database: a URL, an engine, or a connection (whose transaction is then committed).
        schema: the name of the schema, any name.
        revision: the revision to reach.
        password: used when `database` is a URL without one.
        on_wait: told, before it waits for another migration of this database, whose transaction that is; None where
            that cannot be told.

    Returns:
        The revisions that were applied, oldest first; empty when there was nothing to do.

    Raises:
        SchemaError: another version of outboxd made the schema, and this one does not know its revision.
        ConfigError, DatabaseUnavailableError, AccessDeniedError: the URL leads to no database that can be used.
    """
    applied: list[str] = []

    def note(*, step: MigrationInfo, **_: object) -> None:
        applied.extend(step.up_revision_ids)

    with _connected(database, password) as connection:
        refuse_unknown(connection, schema, current_revision(connection, schema))
        config = _alembic_config(schema, connection)
        config.attributes["on_version_apply"] = note
        config.attributes["on_wait"] = on_wait
        command.upgrade(config, revision)
        connection.commit()
    return applied


def downgrade(database: str | Engine | Connection, schema: str, revision: str = "base") -> None:
    """Take the schema back to `revision`. What the dropped tables held is lost; the schema itself stays."""
    with _connected(database) as connection:
        command.downgrade(_alembic_config(schema, connection), revision)
        connection.commit()


def print_sql(schema: str, from_revision: str | None = None) -> str:
    """The SQL that `upgrade` would run, as one transaction for psql; from an empty database unless told otherwise.

    Raises:
        UsageError: this version of outboxd does not know the revision.
    """
    if from_revision is not None and from_revision not in known_revisions():
        raise UsageError(
            f"this version of outboxd knows no revision {from_revision!r}: it knows base (an empty database), "
            + ", ".join(known_revisions())
        )
    buffer = io.StringIO()
    buffer.write(f"-- outboxd: from {from_revision or 'an empty database'} to revision {required_revision()}.\n\n")
    config = _alembic_config(schema, None, buffer)
    command.upgrade(config, f"{from_revision or 'base'}:head", sql=True)
    return buffer.getvalue()


def present_revision(database: str, schema: str, *, password: str = "") -> str | None:
    """The revision of the schema in the database at this URL; None where it has none, or does not let us in.

    `password` is used when the URL has none.

    Raises:
        SchemaError: another version of outboxd made the schema, and this one does not know its revision.
    """
    with ExitStack() as entered:
        try:
            with explained():
                connection = entered.enter_context(_connected(database, password))
        except OutboxdError:
            return None
        with explained():
            current = current_revision(connection, schema)
            refuse_unknown(connection, schema, current)
    return current


def run_sql_file(revision_file: str, direction: str) -> None:
    """Run or print `<revision>.<direction>.sql` beside a revision, its unqualified names meaning the configured schema.

    `@schema@` in the file stands for the quoted name of the schema.
    """
    context = op.get_context()
    if context.config is None:
        raise BugError("a migration runs outside of outboxd.postgres.migrate")
    schema = quoted(context.config.attributes["schema"])
    source = Path(revision_file).with_suffix(f".{direction}.sql").read_text(encoding="utf-8")
    # pg_temp is searched first unless it is named last: a temporary table could else stand in for ours.
    settings = f"SET LOCAL standard_conforming_strings = on;\nSET LOCAL search_path = {schema}, pg_temp;\n\n"
    sql = settings + source.replace("@schema@", schema)
    if context.as_sql:
        context.impl.static_output(sql)
        return
    connection = op.get_bind()
    # Without parameters psycopg sends the text as it is: percent signs mean nothing, many statements are one call.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
    connection.exec_driver_sql(_OWN_PATH)


@contextmanager
def _connected(database: str | Engine | Connection, password: str = "") -> Iterator[Connection]:
    with _connection(database, password) as connection:
        connection.exec_driver_sql(_OWN_PATH)
        yield connection


@contextmanager
def _connection(database: str | Engine | Connection, password: str) -> Iterator[Connection]:
    if isinstance(database, Connection):
        yield database
    elif isinstance(database, Engine):
        with database.connect() as connection:
            # One transaction, whatever the engine does else: what is set for it holds in it alone.
            yield connection.execution_options(isolation_level="READ COMMITTED")
    else:
        conninfo = connection_string(database, password)

        def connect() -> Driver:
            with explained():
                return open_driver(conninfo, autocommit=False)

        # Without hstore, which SQLAlchemy would look for on the new connection, before the path is set.
        engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=connect, use_native_hstore=False)
        with engine.connect() as connection:
            yield connection


def _alembic_config(schema: str, connection: Connection | None, output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    config.attributes["schema"] = schema
    config.attributes["connection"] = connection
    config.attributes["on_wait"] = _wait_silently
    return config
