"""`outboxd config show` and `outboxd config init`."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outboxd.cli.context import config_path, load_settings
from outboxd.cli.output import print_json, print_line, printable
from outboxd.cli.streams import is_full
from outboxd.errors import AccessDeniedError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outboxd.config import Settings

app = typer.Typer(add_completion=False, help="Show or write the configuration.", no_args_is_help=True)


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print every effective value and where it came from; secrets are hidden."""
    settings = load_settings()
    rows = list(_rows(settings))
    if as_json:
        print_json(
            {
                "file": None if settings.file is None else printable(str(settings.file)),
                "settings": {key: {"value": value, "origin": printable(origin)} for key, value, origin in rows},
            }
        )
        return
    shown = [(key, _shown(value), origin) for key, value, origin in rows]
    key_columns = max(len(key) for key, _, _ in shown)
    value_columns = min(40, max(len(value) for _, value, _ in shown))
    for key, value, origin in shown:
        print_line(f"{key:<{key_columns}} = {value:<{value_columns}}  # {origin}")


def _rows(settings: Settings) -> Iterator[tuple[str, object, str]]:
    for section, values in settings.redacted().items():
        tables = {section: values}
        if isinstance(values, list):
            tables = {f"{section}[{index}]": table for index, table in enumerate(values)}
        for name, table in tables.items():
            if isinstance(table, dict):
                for key, value in table.items():
                    yield f"{name}.{key}", value, str(settings.origin(f"{name}.{key}"))


def _shown(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


@app.command()
def init(
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file with every option commented out.

    It goes where -c/--config says, else to $OUTBOXD_CONFIG, else to /etc/outboxd/outboxd.toml; "-" prints it.
    """
    from outboxd.config import find_file
    from outboxd.config.template import template

    path, _ = find_file(config_path(), os.environ)
    if str(path) == "-":
        print_line(template().rstrip("\n"))
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, template(), replace=force)
    except FileExistsError:
        if not path.parent.is_dir():
            where = f"{path} cannot be written: {path.parent} is no directory"
            raise UsageError(f"{where}; -c FILE writes elsewhere") from None
        raise UsageError(f"{path} is there already; --force replaces it, -c FILE writes elsewhere") from None
    except PermissionError as error:
        raise AccessDeniedError(f"{path} cannot be written: {error.strerror}; -c FILE writes elsewhere") from None
    except OSError as error:
        # As where standard output is full: it is not the command line that is wrong.
        kind = UnavailableError if is_full(error) else UsageError
        raise kind(f"{path} cannot be written: {error.strerror}; -c FILE writes elsewhere") from None
    print_line(f"wrote {path}")


def _write_whole(path: Path, text: str, *, replace: bool) -> None:
    # Never a half-written file: written beside, then put in place in one step. The daemon's user, which may exist only
    # while it runs, has to read it; secrets have places of their own, and `check` warns where one stands here.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        beside.chmod(0o644)
        if replace:
            beside.replace(path)
        else:
            path.hardlink_to(beside)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
