"""Where output goes and how it looks: coloured and fitted on a terminal, plain and unwrapped everywhere else."""

from __future__ import annotations

import re
import sys
from typing import IO, TYPE_CHECKING

import orjson

from outboxd.policy.rows import control_characters

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough that nothing anybody prints is wrapped or cropped.
UNWRAPPED_COLUMNS = 100_000
# What JSON may hold as it is, and a terminal takes as a command or reads the other way round.
_DRIVES_TERMINAL = re.compile(f"[{control_characters.ABOVE_ASCII}]")


def console() -> Console:
    """A rich console on standard output; without a terminal it neither colours nor wraps."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """The same on standard error, for progress and remarks beside a result."""
    return _console(sys.stderr)


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    class PlainConsole(Console):
        """Leaves a closed pipe to the command line, which has an exit code for it; rich would end the process."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    if stream.isatty():
        return PlainConsole(file=stream, highlight=False)
    return PlainConsole(
        file=stream, highlight=False, no_color=True, color_system=None, force_terminal=False, width=UNWRAPPED_COLUMNS
    )


def print_line(text: str = "") -> None:
    """Print `text` as it is, without markup, wrapping or colour, to standard output."""
    sys.stdout.write(printable(text) + "\n")


def printable(text: str) -> str:
    """`text` with what is not Unicode (bytes of a path or an argument) escaped, so that it can be written anywhere."""
    return text.encode(errors="backslashreplace").decode()


def print_json(value: object) -> None:
    """Print one JSON document to standard output: indented on a terminal, one line elsewhere.

    `value` may hold dataclasses, datetimes (as RFC 3339) and UUIDs; anything else unknown to JSON is shown by `str()`.
    """
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    if sys.stdout.isatty():
        options |= orjson.OPT_INDENT_2
    sys.stdout.write(json_text(value, options))


def json_text(value: object, options: int = 0) -> str:
    """`value` as JSON, with these options of orjson; what would drive a terminal is escaped, which tells the same."""
    text = orjson.dumps(value, default=str, option=options).decode()
    return _DRIVES_TERMINAL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
