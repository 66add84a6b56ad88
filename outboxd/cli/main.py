"""The way in and the only way out: runs the command and turns whatever ends it into an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_group

from outboxd.cli import context, leaving, streams
from outboxd.cli.registry import CommandGroup
from outboxd.errors import EXIT_BUG, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, OutboxdError, threads_error

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 130
#: What a shell shows for a process that SIGPIPE ended: 128 + 13.
EXIT_BROKEN_PIPE = 141

ABOUT = "Publishes the committed rows of a PostgreSQL outbox to Kafka, in key order, losing none."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code.

    Errors go to standard error: what is wrong, where, what to do; a traceback only with OUTBOXD_DEBUG=1.
    """
    code = _run(argv)
    if argv is None:
        leaving.note(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    streams.prepare()
    context.begin()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _root().main(args=arguments, prog_name="outboxd", standalone_mode=False)
        sys.stdout.flush()
    except OutboxdError as error:
        return _say(str(error), error.exit_code)
    except typer.TyperException as error:
        return _say_usage(error)
    except typer.Abort:
        return _say("aborted", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (BrokenPipeError, streams.OutputClosedError):
        streams.let_go_of_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _say_unwritable(error) if streams.is_unwritable(error) else _say_bug(error)
    except Exception as error:  # noqa: BLE001 - the last place where a bug can be told in a sentence
        # Where a package makes a class as it is loaded, Python makes an error of its own of a Ctrl+C.
        return EXIT_INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else _say_bug(error)
    return code if isinstance(code, int) else EXIT_OK


def _root() -> Any:
    on_terminal = sys.stdout.isatty()
    app = typer.Typer(
        name="outboxd",
        cls=CommandGroup,
        help=ABOUT,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode="rich" if on_terminal else None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            **({} if on_terminal else {"terminal_width": 1000}),
        },
    )
    app.callback()(_about)
    group = get_group(app)
    group.params.extend(context.shared_options())
    return group


def _print_version(asked: bool | None) -> bool | None:
    if asked:
        from outboxd import __version__

        sys.stdout.write(f"outboxd {__version__}\n")
        raise typer.Exit
    return asked


def _about(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version),
    ] = None,
) -> None:
    pass


def _say(message: str, exit_code: int) -> int:
    from outboxd.cli.plain_text import safe

    # A server, a trigger or a row may have written some of it.
    with streams.errors_told():
        sys.stderr.write(f"outboxd: {safe(message)}\n")
    return exit_code


def _say_usage(error: typer.TyperException) -> int:
    # A usage error of the parser knows its command's context; its own show() prints the usage line with it.
    show = getattr(error, "show", None)
    if show is None:
        return _say(error.format_message(), EXIT_USAGE)
    with streams.errors_told():
        show()
    return EXIT_USAGE


def _say_bug(error: Exception) -> int:
    if os.environ.get("OUTBOXD_DEBUG") == "1":
        with streams.errors_told():
            sys.excepthook(type(error), error, error.__traceback__)
    if (no_threads := threads_error(error)) is not None:
        return _say(str(no_threads), no_threads.exit_code)
    return _say(
        f"a bug: {type(error).__name__}: {' '.join(str(error).split())}; "
        "OUTBOXD_DEBUG=1 shows the traceback, a daemon's log is in `journalctl -u outboxd`",
        EXIT_BUG,
    )


def _say_unwritable(error: OSError) -> int:
    streams.let_go_of_output()
    return _say(f"the output cannot be written: {error.strerror}; look at where it goes", EXIT_UNAVAILABLE)
