"""`outboxd migrate`: make or upgrade the tables, or print the SQL for someone else to run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outboxd.cli.context import load_settings
from outboxd.cli.output import print_line
from outboxd.cli.streams import errors_told
from outboxd.errors import UsageError

app = typer.Typer(add_completion=False)


EMPTY = "base"
"""The revision of a database without tables, in the words of the migrations' tool."""


@app.command()
def migrate(
    *,
    sql: Annotated[
        bool,
        typer.Option(
            "--sql",
            help="Print the SQL and change nothing: from the database's present revision, or from an empty database "
            "where it has no tables yet or cannot be reached.",
        ),
    ] = False,
    from_revision: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REVISION",
            help="With --sql: print it from this revision (base: an empty database), and open no connection.",
        ),
    ] = None,
) -> None:
    """Make the tables, views and functions in the configured schema, or bring them up to date.

    Needs a role that may create them; the daemon itself does not.
    """
    from outboxd.postgres.connections.failures import told
    from outboxd.postgres.migrate import present_revision, print_sql, upgrade
    from outboxd.postgres.schema.revisions import required_revision

    if from_revision is not None and not sql:
        raise UsageError("--from says from where --sql prints: give both, or neither to migrate the database")
    database = load_settings().database
    url, password, schema = database.url, database.password, database.schema_
    if sql:
        start = present_revision(url, schema, password=password) if from_revision is None else from_revision
        print_line(print_sql(schema, None if start == EMPTY else start).rstrip())
        return
    with told():
        applied = upgrade(url, schema, password=password, on_wait=_say_waiting)
    for revision in applied:
        print_line(f"applied {revision}")
    print_line(f"schema {schema}: {'now' if applied else 'already'} at revision {required_revision()}")
    _warn_of_dropped(schema)


def _warn_of_dropped(schema: str) -> None:
    """No revision makes anew what somebody dropped since: whoever migrates to have it has to hear that."""
    from outboxd.cli.database import opened
    from outboxd.postgres.checks.sql_interface import missing_objects

    with opened() as (_, engine), engine.connect() as connection:
        found = list(missing_objects(connection, schema))
    with errors_told():
        sys.stderr.writelines(f"warning: {each.message}; {each.remedy}\n" for each in found)


def _say_waiting(holder: str | None) -> None:
    """A migration may take long, and a wait that nobody explains looks like a hanging command."""
    whose = "" if holder is None else f": {holder}"
    with errors_told():
        sys.stderr.write(f"waiting for the lock of another migration of this database{whose}\n")
