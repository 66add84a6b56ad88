"""`outboxd dead`: what died and why, and what becomes of it.

Modules: `looking` and `mending` have the commands, `filters` the options they share, `text` what they print.
"""

from __future__ import annotations

import typer

from outboxd.cli.dead import looking, mending

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Look at dead letters; replay, discard or export them."
)
app.command("summary")(looking.summary)
app.command("list")(looking.list_)
app.command("show")(looking.show)
app.command("replay")(mending.replay)
app.command("discard")(mending.discard)
app.command("export")(looking.export)
