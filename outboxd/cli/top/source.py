"""Where `top` looks: at a daemon's page, and where none answers, at the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from outboxd.cli.daemon_page import DaemonPage
from outboxd.cli.top.form import is_whole
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
            if status is not None:
                why = f"the daemon at {self._page.base} relays another outbox"
            elif self._page.base:
                why = f"no daemon's page answers at {self._page.base}"
            else:
                why = "http.listen names no page to ask"
            return self._of_database(why)
        look = self._of_daemon(status)
        return look or self._of_database(f"the page at {self._page.base} is of another form than this version's")

    def _of_daemon(self, status: dict[str, Any]) -> Look | None:
        """The look of what this page tells; None where it tells something else, as one of another version may."""
        now = measured(self._page.ask("/metrics"))
        told = Told(status, self._page.json("/api/points") or (), now.dead_by_topic)
        source = f"the page of {status['daemon']} at {self._page.base}"
        try:
            look = look_of_daemon(told, source, self._former, self._latency(now))
            if not is_whole(look):
                return None
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return None
        self._former = told
        self._measured.append(now)
        return look

    def _latency(self, now: Measured) -> Latency | None:
        if not self._measured:
            return latency_between(Measured(), now, "since the daemon's start")
        return latency_between(self._measured[0], now, f"in the last {len(self._measured)} s")

    def _of_database(self, why: str) -> Look:
        from outboxd.postgres.connections.failures import explained
        from outboxd.postgres.operators.overview import look

        self._former = None
        self._measured.clear()
        outbox, schema = self._settings.outbox.name, self._settings.database.schema_
        with explained():
            overview = look(self._engine(), schema, self._settings.outbox.table, outbox)
        return look_of_database(overview, outbox, f"the database; {why}")
