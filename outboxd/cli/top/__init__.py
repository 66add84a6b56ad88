"""`outboxd top`: how an outbox flows, live."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from outboxd.cli.database import opened
from outboxd.cli.output import console, print_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from outboxd.cli.top.source import Source

app = typer.Typer(add_completion=False)

LOOK_SECONDS = 1.0


@app.command()
def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame and leave, as it does without a terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One look as one JSON document.")] = False,
) -> None:
    """Show rate, lag, latency, topics, held keys, breakers and dead letters, once a second. q or Ctrl+C ends it.

    Asks the daemon's page (http.listen); where none answers, the database, which knows less.
    """
    from dataclasses import asdict

    from outboxd.cli.top.source import Source

    with opened() as (settings, engine):
        source = Source(settings, lambda: engine)
        if as_json:
            print_json(asdict(source.look()))
            return
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Topics and keys may hold characters that this terminal's encoding lacks: escaped, they would not fit.
            sys.stdout.reconfigure(errors="replace")
        screen = console()
        if once or not screen.is_terminal:
            screen.print(_frame(source, screen, is_whole=True))
        else:
            watch = _print_frames if screen.is_dumb_terminal else _live
            # Ctrl+C is how watching ends well.
            with contextlib.suppress(KeyboardInterrupt):
                watch(source, screen)


def _frame(source: Source, screen: Console, *, is_whole: bool = False) -> RenderableType:
    """The next frame; a whole one shows every row, whatever the terminal's height."""
    from rich.console import ConsoleDimensions
    from rich.text import Text

    from outboxd.cli.top.frame import frame
    from outboxd.errors import OutboxdError

    if screen.is_terminal:
        # The terminal's own size, also after it changed: $COLUMNS and $LINES tell an old one where they are exported.
        with contextlib.suppress(OSError):
            screen.size = ConsoleDimensions(*os.get_terminal_size(screen.file.fileno()))
    columns, lines = screen.size
    try:
        look = source.look()
    except OutboxdError as error:
        if is_whole:
            raise
        # A server that is away for a moment is what one watches for: the next look may find it again.
        return Text(f"{error}\n\nlooking again every {LOOK_SECONDS:g} s; q ends", style="red")
    return frame(
        look,
        columns=columns,
        lines=10_000 if is_whole else lines,
        plain=screen.options.ascii_only,
        fits=screen.is_terminal,
    )


def _print_frames(source: Source, screen: Console) -> None:
    """For a terminal that cannot move its cursor: one frame after the other."""
    from outboxd.cli.top.terminal import single_keys, wait_for_quit

    with single_keys() as descriptor:
        while True:
            screen.print(_frame(source, screen))
            if wait_for_quit(descriptor, LOOK_SECONDS):
                return
            screen.print()


def _live(source: Source, screen: Console) -> None:
    from rich.live import Live

    from outboxd.cli.top.terminal import single_keys, wait_for_quit

    with (
        single_keys() as descriptor,
        Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while True:
            began = time.monotonic()
            live.update(_frame(source, screen), refresh=True)
            if wait_for_quit(descriptor, max(0.1, LOOK_SECONDS - (time.monotonic() - began))):
                return
