"""Where `top` looks: at a daemon's page, and where none answers, at the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from outboxd.cli.daemon_page import DaemonPage
from outboxd.cli.top.latency import Measured, latency_between, measured
from outboxd.cli.top.look import Latency, Look, Told, look_of_daemon, look_of_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from outboxd.config import Settings

LATENCY_LOOKS: Final = 10
"""The latency is that of the rows acknowledged within the last so many looks."""


class Source:
    """Remembers what it saw before, for rates by topic and the latency of the last seconds."""

    def __init__(self, settings: Settings, engine: Callable[[], Engine]) -> None:
        """`engine` is asked for when the database has to be looked at, not before."""
        self._settings = settings
        self._engine = engine
        self._page = DaemonPage(settings.http.address)
        self._former: Told | None = None
        self._measured: deque[Measured] = deque(maxlen=LATENCY_LOOKS)

    def look(self) -> Look:
        """Look once.

        Raises:
            OutboxdError: neither a daemon's page nor the database answers.
        """
        status = self._page.status()
        if status is None or status.get("outbox") != self._settings.outbox.name:
            self._former = None
            self._measured.clear()
            return self._of_database(status is not None)
        now = measured(self._page.ask("/metrics"))
        told = Told(status, self._page.json("/api/points") or (), now.dead_by_topic)
        source = f"the page of {status['daemon']} at {self._page.base}"
        look = look_of_daemon(told, source, self._former, self._latency(now))
        self._former = told
        self._measured.append(now)
        return look

    def _latency(self, now: Measured) -> Latency | None:
        if not self._measured:
            return latency_between(Measured(), now, "since the daemon's start")
        return latency_between(self._measured[0], now, f"in the last {len(self._measured)} s")

    def _of_database(self, is_other: bool) -> Look:
        from outboxd.postgres.connections.failures import explained
        from outboxd.postgres.operators.overview import look

        outbox, schema = self._settings.outbox.name, self._settings.database.schema_
        with explained():
            overview = look(self._engine(), schema, self._settings.outbox.table, outbox)
        if is_other:
            why = f"the daemon at {self._page.base} relays another outbox"
        elif self._page.base:
            why = f"no daemon's page answers at {self._page.base}"
        else:
            why = "http.listen names no page to ask"
        return look_of_database(overview, outbox, f"the database; {why}")
