"""`outboxd resume`: let the rows of paused topics go."""

from __future__ import annotations

from typing import Annotated

import typer

from outboxd.cli.database import opened
from outboxd.cli.output import print_json, print_line
from outboxd.cli.plain_text import one_line
from outboxd.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def resume(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="The very pattern that was paused.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """End a pause: the rows that waited go, in order, before anything newer of their keys."""
    with opened() as (settings, engine):
        from outboxd.postgres.operators.pauses import list_pauses
        from outboxd.postgres.operators.pauses import resume as resume_topics

        schema, outbox = settings.database.schema_, settings.outbox.name
        if not resume_topics(engine, schema, outbox, pattern):
            paused = ", ".join(one_line(each.topic_pattern) for each in list_pauses(engine, schema, outbox))
            raise UsageError(
                f"{pattern!r} is not paused; paused are: {paused or 'none'}. A topic that `outboxd status` shows on "
                "hold for a fault goes on by itself once that is mended"
            )
    if as_json:
        print_json({"resumed": pattern})
        return
    print_line(f"resumed {one_line(pattern)}")
