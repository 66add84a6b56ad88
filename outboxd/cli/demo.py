"""`outboxd demo`: see it work, with nothing installed but this package."""

from __future__ import annotations

from typing import Annotated

import typer

from outboxd.cli.output import console

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running until Ctrl+C, and print the addresses.")
    ] = False,
) -> None:
    """Relay 1,000 rows from an embedded PostgreSQL to an in-process Kafka broker, and check what arrived.

    One row can never be delivered, one is made to fail at first. Reads no configuration and leaves nothing behind.
    """
    from outboxd.demo.show import run

    run(console(), keep=keep)
