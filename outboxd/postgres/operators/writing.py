"""One row into the outbox, as an application writes it: for `outboxd send` and for trying things out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from outboxd.errors import UsageError
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.sql_text import in_schema

# The event id is made here: a role that may only write cannot read back what the database would make.
_INSERT = """INSERT INTO @outbox@ (topic, key, payload, headers, event_id)
    VALUES (:topic, :key, :payload, CAST(:headers AS jsonb), :event_id) RETURNING id"""

Header = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Written:
    """A committed row."""

    id: int
    event_id: uuid.UUID


def write_row(
    engine: Engine,
    schema: str,
    table: str,
    *,
    topic: str,
    key: str | None,
    payload: bytes | None,
    headers: Sequence[Header] = (),
) -> Written:
    """Insert and commit one row.

    Args:
        engine: in autocommit mode.
        schema: where the outbox is.
        table: the outbox's table.
        topic: where it goes; it is not checked here, as it is not for applications.
        key: what order is kept by.
        payload: None is a tombstone.
        headers: in their order; names may repeat.

    Raises:
        UsageError: PostgreSQL cannot store these texts.
    """
    event_id = uuid.uuid4()
    values = {"topic": topic, "key": key, "payload": payload, "headers": headers_json(headers), "event_id": event_id}
    try:
        with explained(), engine.connect() as connection:
            row_id = connection.execute(in_schema(_INSERT, schema, table=table), values).scalar_one()
    except UnicodeEncodeError:
        raise UsageError("topic, key and headers have to be text in UTF-8; only the payload may be any bytes") from None
    return Written(row_id, event_id)


def headers_json(headers: Sequence[Header]) -> str:
    """The headers as the column takes them: an object, or pairs where a name repeats, which an object cannot say."""
    names = [name for name, _ in headers]
    document = dict(headers) if len(set(names)) == len(names) else [list(header) for header in headers]
    # Unescaped, so that what is no text is found before it is sent.
    return json.dumps(document, ensure_ascii=False)
