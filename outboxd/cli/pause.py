"""`outboxd pause`: let the rows of some topics wait."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outboxd.cli.database import opened
from outboxd.cli.output import print_json, print_line
from outboxd.cli.plain_text import one_line, shell_word
from outboxd.cli.streams import errors_told

app = typer.Typer(add_completion=False)


@app.command()
def pause(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A topic, or a glob such as 'metrics.*'; '*' pauses all.")
    ],
    *,
    note: Annotated[str | None, typer.Option("--note", help="Why.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Pause topics: their rows stay pending, over restarts too, until `outboxd resume` with the same pattern."""
    with opened() as (settings, engine):
        from outboxd.postgres.operators.pauses import pause as pause_topics

        schema, outbox = settings.database.schema_, settings.outbox.name
        done = pause_topics(engine, schema, outbox, pattern, note)
    # It may be early, or the wrong configuration: in a hurry nobody sees that nothing is paused.
    for remark in done.remarks:
        with errors_told():
            sys.stderr.write(f"schema {schema!r}: {one_line(remark)}\n")
    if as_json:
        print_json({"paused": pattern, "changed": done.is_new})
        return
    print_line(f"paused {one_line(pattern)}" if done.is_new else f"{one_line(pattern)} was paused already")
    print_line(f"undo: outboxd resume {shell_word(pattern)}")
