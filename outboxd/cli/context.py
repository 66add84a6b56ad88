"""What the command line says about the configuration, wherever on it: `-c/--config` and `--set`.

The two options stand at every depth (`outboxd -c f config show`, `outboxd config show -c f`). Each occurrence is
remembered here by its callback; a command asks `load_settings()`.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outboxd.config import Settings


@dataclass
class Asked:
    """What was asked for so far: the file, and single settings by their contract name, such as `relay.batch_rows`."""

    config: Path | None = None
    overrides: dict[str, str] = field(default_factory=dict)


_asked: ContextVar[Asked] = ContextVar("asked")


def begin() -> None:
    """Forget what an earlier command line in this interpreter asked for."""
    _asked.set(Asked())


def config_path() -> Path | None:
    """The file of the last `-c/--config`; None when none was given."""
    return _asked.get().config


def overrides() -> Mapping[str, str]:
    """The settings given by `--set`, as text, by their contract name."""
    return dict(_asked.get().overrides)


def load_settings(*, needs_brokers: bool = False) -> Settings:
    """The configuration as this command line asks for it: file, environment, credentials and flags together.

    `needs_brokers`: whether it is a mistake to name none.

    Raises:
        ConfigError: lists every mistake with its place.
    """
    from outboxd.config import load

    return load(config_path(), flags=overrides(), env=os.environ, needs_brokers=needs_brokers)


def _remember_config(value: str | None) -> str | None:
    if value is not None:
        # The parser hands `-c=FILE` over with its equals sign.
        name = value.removeprefix("=")
        if not name:
            raise typer.BadParameter("names no file; leave it out for the usual one")
        _asked.get().config = Path(name)
    return value


def _remember_override(values: list[str] | None) -> list[str] | None:
    for value in values or []:
        key, equals, text = value.partition("=")
        if not equals or "." not in key:
            raise typer.BadParameter(f"{key!r}: give SECTION.KEY=VALUE, such as relay.batch_rows=1000")
        _asked.get().overrides[key.strip()] = text
    return values


_options = typer.Typer(add_completion=False)


@_options.command()
def _shared(
    config: Annotated[
        str | None,
        typer.Option(
            "-c",
            "--config",
            metavar="FILE",
            help="Configuration file; without it $OUTBOXD_CONFIG, else /etc/outboxd/outboxd.toml.",
            callback=_remember_config,
            expose_value=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Override one setting; may be repeated.",
            callback=_remember_override,
            expose_value=False,
        ),
    ] = None,
) -> None:
    """Holds the options that every command shares."""


def shared_options() -> Iterator[Any]:
    """New parameter objects of `-c/--config` and `--set`, for one command."""
    yield from get_command(_options).params
