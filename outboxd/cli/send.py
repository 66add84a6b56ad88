"""`outboxd send`: put one row into the outbox, as an application would."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from outboxd.cli.database import opened
from outboxd.cli.output import print_json, print_line, printable
from outboxd.cli.streams import read_input
from outboxd.errors import UsageError

#: PostgreSQL stores no value of a gibibyte, and an input without an end would fill the memory.
PAYLOAD_BYTES_LIMIT = 1 << 30

app = typer.Typer(add_completion=False)


@app.command()
def send(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The Kafka topic.")],
    *,
    key: Annotated[
        str | None, typer.Option("--key", help="What order is kept by; without it there is no order.")
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header; may be repeated.")
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option("--payload", help='The payload; "-" reads standard input. Without it: null, a tombstone.'),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Put one row into the outbox and commit it; the daemon publishes it. Prints its id and event id."""
    pairs = [_header(text) for text in headers or ()]
    with opened() as (settings, engine):
        from outboxd.postgres.operators.writing import write_row

        written = write_row(
            engine,
            settings.database.schema_,
            settings.outbox.table,
            topic=topic,
            key=key,
            payload=_content(payload),
            headers=pairs,
        )
    if as_json:
        print_json({"id": written.id, "event_id": written.event_id, "topic": printable(topic), "key": key})
        return
    print_line(f"id {written.id}")
    print_line(f"event_id {written.event_id}")


def _header(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--header {text!r}: give NAME=VALUE")
    return name, value


def _content(payload: str | None) -> bytes | None:
    if payload is None:
        return None
    # An argument that is not UTF-8 stays the bytes that it was.
    return read_input(PAYLOAD_BYTES_LIMIT) if payload == "-" else os.fsencode(payload)
