"""The start log: a row for each start of a daemon, closed at its clean end. Starts without an end are crashes."""

from __future__ import annotations

from sqlalchemy import Engine, text

from outboxd.postgres.failures import explained
from outboxd.postgres.names import quoted


class StartLog:
    """One daemon's row in the table `start`."""

    def __init__(self, engine: Engine, schema: str, outbox: str, daemon: str) -> None:
        """`daemon` is `host:pid`."""
        self._engine = engine
        self._table = f"{quoted(schema)}.start"
        self._outbox, self._daemon = outbox, daemon
        self._id: int | None = None

    def began(self) -> None:
        """Write the start."""
        with explained(), self._engine.connect() as connection:
            statement = f"INSERT INTO {self._table} (outbox, daemon) VALUES (:outbox, :daemon) RETURNING id"
            self._id = connection.execute(
                text(statement), {"outbox": self._outbox, "daemon": self._daemon}
            ).scalar_one()

    def ended(self) -> None:
        """Write the clean end."""
        with explained(), self._engine.connect() as connection:
            statement = f"UPDATE {self._table} SET ended_at = now(), clean = true WHERE id = :id"
            connection.execute(text(statement), {"id": self._id})
