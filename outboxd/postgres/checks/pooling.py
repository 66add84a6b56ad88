"""How the pooler between us and PostgreSQL shares its connections, where that keeps part of the daemon from working."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg.errors import ProtocolViolation
from sqlalchemy import Engine

from outboxd.policy.exchange.findings import Finding, Weight


def pooling_of(engine: Engine) -> Iterator[Finding]:
    """Say whether a pooler refuses a transaction of two statements.

    Most of what the relay does is one statement, which goes through: rows would be published, and never be removed.
    """
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if not driver.is_pooled:
            return
        try:
            driver.execute("BEGIN")
            driver.execute("ROLLBACK")
        except ProtocolViolation as error:
            # The pooler has closed it.
            connection.invalidate()
            said = " ".join(str(error).split())
            yield Finding(
                "database",
                Weight.MISCONFIGURED,
                f"the pooler refuses transactions of more than one statement ({said}): published rows and "
                "resolved dead letters would never be removed, backlog and dead letters never be counted",
                "set pool_mode = transaction (or session) for this database and user in PgBouncer, or name PostgreSQL "
                "itself in database.url",
            )
