"""The revisions of the schema: which one the database has, and which one this version of outboxd needs.

Without Alembic, which takes a tenth of a second and eleven mebibytes of memory for as long as the daemon runs:
revisions follow each other without branches, and a revision's file is named after it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, Table, Text, select, text

import outboxd
from outboxd.errors import SchemaError
from outboxd.postgres.schema.names import quoted

VERSION_TABLE = "alembic_version"


def migrations_path() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout.

    Raises:
        SchemaError: they are in neither place, so the installation is broken.
    """
    package = Path(outboxd.__file__).resolve().parent
    for path in (package / "migrations", package.parent / "migrations"):
        if (path / "env.py").is_file():
            return path
    raise SchemaError(f"the migrations are missing beside {package}: install outboxd again")


@functools.cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that this version of outboxd knows, oldest first.

    Raises:
        SchemaError: the installation has none, so it is broken.
    """
    files = (migrations_path() / "versions").glob("[0-9]*_*.py")
    revisions = tuple(sorted(file.stem.partition("_")[0] for file in files))
    if not revisions:
        raise SchemaError("the installation has no migrations: install outboxd again")
    return revisions


def required_revision() -> str:
    """The revision that this version of outboxd needs."""
    return known_revisions()[-1]


def current_revision(connection: Connection, schema: str) -> str | None:
    """The revision of the schema in the database; None where it was never migrated."""
    # to_regclass answers null for what is missing, so that no error spoils the caller's transaction.
    table = f"{quoted(schema)}.{VERSION_TABLE}"
    if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    version = Table(VERSION_TABLE, MetaData(), Column("version_num", Text), schema=schema)
    revision: str | None = connection.scalar(select(version.c.version_num))
    return revision


def check_schema(connection: Connection, schema: str) -> None:
    """Make sure that the tables are there and of the revision that this version needs.

    Raises:
        SchemaError: they are not; the message says what to run.
    """
    current, required = current_revision(connection, schema), required_revision()
    if current == required:
        return
    place = _place(connection, schema)
    if current is None:
        raise SchemaError(f"{place} has no outboxd tables: run `outboxd migrate` as a role that may create them")
    refuse_unknown(connection, schema, current)
    raise SchemaError(f"{place} has revision {current}, and {required} is needed: run `outboxd migrate`")


def refuse_unknown(connection: Connection, schema: str, current: str | None) -> None:
    """Raise SchemaError where the schema has a revision, and this version of outboxd does not know it."""
    if current is not None and current not in known_revisions():
        raise SchemaError(
            f"{_place(connection, schema)} has revision {current}, which this version of outboxd does not know (it "
            f"needs {required_revision()}): install the version of outboxd that migrated it, or a newer one"
        )


def _place(connection: Connection, schema: str) -> str:
    return f"the schema {schema!r} of the database {connection.scalar(text('SELECT current_database()'))!r}"
