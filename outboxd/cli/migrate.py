"""`outboxd migrate`: make or upgrade the tables, or print the SQL for someone else to run."""

from __future__ import annotations

from typing import Annotated

import typer

from outboxd.cli.context import load_settings
from outboxd.cli.output import print_line

app = typer.Typer(add_completion=False)


@app.command()
def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL for an empty database and change nothing; opens no connection.")
    ] = False,
) -> None:
    """Make the tables, views and functions in the configured schema, or bring them up to date.

    Needs a role that may create them; the daemon itself does not.
    """
    from outboxd.postgres.failures import explained
    from outboxd.postgres.migrate import print_sql, required_revision, upgrade

    database = load_settings().database
    if sql:
        print_line(print_sql(database.schema_).rstrip())
        return
    with explained():
        applied = upgrade(database.url, database.schema_, password=database.password)
    for revision in applied:
        print_line(f"applied {revision}")
    print_line(f"schema {database.schema_}: {'now' if applied else 'already'} at revision {required_revision()}")
