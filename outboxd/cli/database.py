"""The database as a command meets it: connected for as long as the command runs, refusals in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from outboxd.cli.context import load_settings
from outboxd.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from outboxd.config import Settings

#: No command's single statement takes longer, so that none is a burden on the application's database.
STATEMENT_SECONDS_MAX = 60.0
FIRST_ANSWER_SECONDS_MAX = 15.0
"""A pooler lets everybody in, and what is asked waits for a connection that is free: 120 s behind PgBouncer."""


@contextmanager
def opened() -> Iterator[tuple[Settings, Engine]]:
    """The configuration and an engine on its database.

    Within it, what PostgreSQL refuses is raised as an error of ours, with what to do about it.

    Raises:
        ConfigError: the configuration has mistakes.
        UsageError: an argument is no text, which PostgreSQL cannot be asked for.
    """
    from outboxd.postgres.connections.engine import make_engine
    from outboxd.postgres.connections.failures import told

    settings = load_settings()
    engine = make_engine(
        settings.database.url,
        settings.database.password,
        statement_timeout_seconds=STATEMENT_SECONDS_MAX,
        first_answer_seconds=FIRST_ANSWER_SECONDS_MAX,
    )
    try:
        with told():
            yield settings, engine
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} is no text in UTF-8, which is all that PostgreSQL takes") from None
    finally:
        engine.dispose()
