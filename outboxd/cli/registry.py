"""Which commands there are, and the group that loads each one when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from outboxd.cli.context import shared_options
from outboxd.cli.streams import OutputClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: name → module with an `app: typer.Typer`; in the order in which `--help` lists them.
COMMANDS: Mapping[str, str] = {
    "run": "outboxd.cli.run",
    "check": "outboxd.cli.check",
    "migrate": "outboxd.cli.migrate",
    "status": "outboxd.cli.status",
    "top": "outboxd.cli.top",
    "send": "outboxd.cli.send",
    "dead": "outboxd.cli.dead",
    "audit": "outboxd.cli.audit",
    "pause": "outboxd.cli.pause",
    "resume": "outboxd.cli.resume",
    "config": "outboxd.cli.config",
    "demo": "outboxd.cli.demo",
    "bench": "outboxd.cli.bench",
    "version": "outboxd.cli.version",
}


class CommandGroup(TyperGroup):
    """The root group: knows its commands by name and imports a command's module only to run it or to list it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class has it
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base class has it
        """The command of that name, loaded now; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = load_command(cmd_name, markup_mode=self.rich_markup_mode)
        return self.commands[cmd_name]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a closed pipe leaves as `OutputClosedError`, which the parser does not make exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class, which suggests near names only among commands already loaded: a typo loads them all."""
        if args and args[0] not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def load_command(name: str, *, markup_mode: Any = None) -> Any:
    """Import the module of the command `name` and return its command, with the shared options at every depth.

    `markup_mode` is how help is laid out: "rich" on a terminal, None (plain) elsewhere.
    """
    app: typer.Typer = importlib.import_module(COMMANDS[name]).app
    command = get_command(app)
    command.name = name
    for each in _with_subcommands(command):
        each.params.extend(shared_options())
        each.rich_markup_mode = markup_mode
    return command


def _with_subcommands(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from _with_subcommands(child)
