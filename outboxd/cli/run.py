"""`outboxd run`: the daemon."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated

import typer

from outboxd.cli.context import config_path, load_settings, overrides
from outboxd.cli.leaving import leave_out_exit_handlers
from outboxd.daemon.signals import note_hangups

app = typer.Typer(add_completion=False)


@app.command()
def run(
    until_empty: Annotated[
        bool,
        typer.Option(
            "--until-empty",
            help="End with 0 when no committed row is left to be relayed; rows paused, held or not yet available are "
            "listed on standard error. Ends with 69 where Kafka keeps it from that, or a signal.",
        ),
    ] = False,
) -> None:
    """Relay the outbox until stopped: fetch committed rows, publish them, settle what the broker says.

    SIGTERM or SIGINT drains: nothing new is read, reports are awaited and settled, within `relay.shutdown_timeout`. A
    second signal ends at once. Unsettled rows stay pending either way. SIGHUP reads the configuration again.
    """
    # Before all that takes its time, to load the packages first of all.
    note_hangups()
    from outboxd.config import load
    from outboxd.daemon.daemon import run_daemon

    settings = load_settings(needs_brokers=True)
    # A reload runs on another thread, which does not know what this command line asked for.
    load_again = partial(load, config_path(), flags=dict(overrides()), env=dict(os.environ), needs_brokers=True)
    leave_out_exit_handlers()
    raise typer.Exit(run_daemon(settings, until_empty=until_empty, load_again=load_again))
