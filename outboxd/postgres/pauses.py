"""What operators pause and resume: topics by a glob, kept in the database over restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from outboxd.errors import UsageError
from outboxd.postgres.failures import explained
from outboxd.postgres.finite import finite
from outboxd.postgres.sql_text import in_schema

_PAUSE = "SELECT @schema@.pause(CAST(:pattern AS text), CAST(:note AS text), CAST(:outbox AS text))"
_RESUME = "SELECT @schema@.resume(CAST(:pattern AS text), CAST(:outbox AS text))"
_LIST = f"""SELECT topic_pattern, {finite("since")} AS since, who, note FROM @schema@.control
    WHERE outbox = :outbox ORDER BY topic_pattern"""
_RELAYED = "SELECT DISTINCT outbox FROM @schema@.lease ORDER BY outbox"
_INVALID_VALUE = "22023"


@dataclass(frozen=True, slots=True)
class PausedTopics:
    """Topics that match the glob are paused: since when, by whom, and why."""

    topic_pattern: str
    since: datetime
    who: str
    note: str | None


def pause(engine: Engine, schema: str, outbox: str, pattern: str, note: str | None = None) -> bool:
    """Pause the topics that match; False where this very pattern was paused already.

    Raises:
        UsageError: it is no pattern.
    """
    try:
        with explained(), engine.connect() as connection:
            values = {"pattern": pattern, "note": note, "outbox": outbox}
            return bool(connection.execute(in_schema(_PAUSE, schema), values).scalar_one())
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == _INVALID_VALUE:
            raise UsageError(f"{error.orig.diag.message_primary}: name a topic, or a glob; '*' pauses all") from error
        raise


def resume(engine: Engine, schema: str, outbox: str, pattern: str) -> bool:
    """End the pause of this very pattern; False where there was none."""
    with explained(), engine.connect() as connection:
        return bool(connection.execute(in_schema(_RESUME, schema), {"pattern": pattern, "outbox": outbox}).scalar_one())


def list_pauses(engine: Engine, schema: str, outbox: str) -> Sequence[PausedTopics]:
    """What is paused, by pattern."""
    with explained(), engine.connect() as connection:
        rows = connection.execute(in_schema(_LIST, schema), {"outbox": outbox})
        return [PausedTopics(**row._mapping) for row in rows]


def list_relayed(engine: Engine, schema: str) -> Sequence[str]:
    """The outboxes that a daemon ever relayed from this schema; a pause of another one keeps nothing waiting so far."""
    with explained(), engine.connect() as connection:
        return connection.execute(in_schema(_RELAYED, schema)).scalars().all()
