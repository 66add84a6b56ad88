"""`outboxd pause`: let the rows of some topics wait."""

from __future__ import annotations

from typing import Annotated

import typer

from outboxd.cli.database import opened
from outboxd.cli.output import print_json, print_line
from outboxd.cli.plain_text import safe

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
        from outboxd.postgres.pauses import pause as pause_topics

        is_new = pause_topics(engine, settings.database.schema_, settings.outbox.name, pattern, note)
    if as_json:
        print_json({"paused": pattern, "changed": is_new})
        return
    print_line(f"paused {safe(pattern)}" if is_new else f"{safe(pattern)} was paused already")
    print_line(f"undo: outboxd resume {_shell(pattern)}")


def _shell(text: str) -> str:
    import shlex

    return shlex.quote(text)
