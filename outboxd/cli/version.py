"""`outboxd version`: which outboxd, and which libraries decide its behaviour."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from outboxd import __version__
from outboxd.cli.output import print_json, print_line

app = typer.Typer(add_completion=False)

LIBRARIES = ("confluent-kafka", "psycopg", "sqlalchemy")


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print the version of outboxd and of the libraries it stands on."""
    libraries = {name: installed_version(name) for name in LIBRARIES}
    if as_json:
        print_json({"outboxd": __version__, "python": platform.python_version(), "libraries": libraries})
        return
    print_line(f"outboxd {__version__}")
    print_line(f"python {platform.python_version()}")
    for name, number in libraries.items():
        print_line(f"{name} {number}")
