"""What operators pause and resume: topics by a glob, kept in the database over restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from outboxd.errors import UsageError
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.finite import finite
from outboxd.postgres.schema.sql_text import in_schema

# Whatever the role asks of its sessions, what the function has to say is to arrive.
_PAUSE = """SELECT @schema@.pause(CAST(:pattern AS text), CAST(:note AS text), CAST(:outbox AS text))
    FROM set_config('client_min_messages', 'notice', true)"""
_RESUME = "SELECT @schema@.resume(CAST(:pattern AS text), CAST(:outbox AS text))"
_LIST = f"""SELECT topic_pattern, {finite("since")} AS since, who, note FROM @schema@.control
    WHERE outbox = :outbox ORDER BY topic_pattern"""
_INVALID_VALUE = "22023"


@dataclass(frozen=True, slots=True)
class PausedTopics:
    """Topics that match the glob are paused: since when, by whom, and why."""

    topic_pattern: str
    since: datetime
    who: str
    note: str | None


@dataclass(frozen=True, slots=True)
class Paused:
    """What a pause did: whether this very pattern was not paused before, and what PostgreSQL remarks on it.

    A remark is such as that no daemon has relayed this outbox, so that nothing waits so far.
    """

    is_new: bool
    remarks: Sequence[str]


def pause(engine: Engine, schema: str, outbox: str, pattern: str, note: str | None = None) -> Paused:
    """Pause the topics that match.

    Raises:
        UsageError: it is no pattern.
    """
    values = {"pattern": pattern, "note": note, "outbox": outbox}
    try:
        with explained(), engine.connect() as connection, _remarks(connection) as remarks:
            is_new = bool(connection.execute(in_schema(_PAUSE, schema), values).scalar_one())
            return Paused(is_new, remarks)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == _INVALID_VALUE:
            raise UsageError(f"{error.orig.diag.message_primary}: name a topic, or a glob; '*' pauses all") from error
        raise


@contextmanager
def _remarks(connection: Connection) -> Iterator[list[str]]:
    """What the server remarks on the statements within it."""
    driver: Any = connection.connection.driver_connection
    remarks: list[str] = []

    def note(remark: psycopg.errors.Diagnostic) -> None:
        remarks.append(remark.message_primary or "")

    driver.add_notice_handler(note)
    try:
        yield remarks
    finally:
        driver.remove_notice_handler(note)


def resume(engine: Engine, schema: str, outbox: str, pattern: str) -> bool:
    """End the pause of this very pattern; False where there was none."""
    with explained(), engine.connect() as connection:
        return bool(connection.execute(in_schema(_RESUME, schema), {"pattern": pattern, "outbox": outbox}).scalar_one())


def list_pauses(engine: Engine, schema: str, outbox: str) -> Sequence[PausedTopics]:
    """What is paused, by pattern."""
    with explained(), engine.connect() as connection:
        rows = connection.execute(in_schema(_LIST, schema), {"outbox": outbox})
        return [PausedTopics(**row._mapping) for row in rows]
