"""The stage: everything that a fault can break and everything that it can look at."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.chaos.campaign.checker import TOPIC_PREFIX, Stream
from tests.chaos.campaign.daemons import Daemon, Event, Pair
from tests.chaos.campaign.load import Load
from tests.chaos.campaign.servers import Brokers, Postgres

STRICT, LIMITED, WIDE, COMPACTED = (f"{TOPIC_PREFIX}{name}" for name in ("strict", "limited", "wide", "compacted"))
PLAIN = tuple(f"{TOPIC_PREFIX}{name}" for name in ("orders", "payments"))
TOPIC_LIMIT_BYTES = 20_000
AWAY_SECONDS = 12.0


class NotObservedError(Exception):
    """The fault had no effect that was seen: it does not count."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds the lease."""

    token: int
    daemon: Daemon
    standby: Daemon


@dataclass(frozen=True, slots=True)
class Happening:
    """A fault, from its beginning to its end (infinite while it lasts)."""

    kind: str
    hinders_lease: bool
    hinders_delivery: bool
    began_at: float
    ended_at: float = float("inf")


@dataclass
class Stage:
    """Shared by all faults; each of them takes what it breaks by its resources."""

    postgres: Postgres
    brokers: Brokers
    pair: Pair
    stream: Stream
    load: Load
    delivery: str
    happenings: list[Happening] = field(default_factory=list)
    edited: set[int] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)

    # --- Looking

    def sql(self, **options: Any) -> psycopg.Connection[Any]:
        """A direct connection to the primary, which another fault may keep away for some seconds."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return self.postgres.connect(**options)
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.stopping.is_set():
                    raise
                time.sleep(0.1)

    def value(self, query: str, *parameters: object) -> Any:
        """The single value of a query, on a connection of its own."""
        with self.sql() as connection:
            row = connection.execute(query, parameters or None).fetchone()
        return None if row is None else row[0]

    def until(self, condition: Callable[[], Any], seconds: float, what: str, *, poll: float = 0.05) -> Any:
        """Poll until the condition gives something true, and return that; a server that is away is asked again."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(psycopg.Error):
                found = condition()
                if found:
                    return found
            if time.monotonic() > deadline:
                raise NotObservedError(f"not within {seconds:g} s: {what}")
            time.sleep(poll)

    def event(
        self, since: float, name: str, seconds: float, *, daemon: Daemon | None = None, **fields: object
    ) -> Event:
        """Wait for an event of a daemon's log."""

        def there() -> list[Event]:
            found = self.pair.since(since, name, daemon=daemon)
            return [each for each in found if all(each.fields.get(key) == value for key, value in fields.items())]

        event: Event = self.until(there, seconds, f"the event {name}")[0]
        return event

    def reactions(self, since: float) -> dict[str, int]:
        """What the daemons logged since then that a fault explains."""
        names = (
            "owner", "lease_lost", "database_failed", "breaker_opened", "in_flight_stalled", "producer_rebuilt",
            "settle_fenced", "recovered", "recovery_failed", "careful_start", "log_lines_dropped", "settle_mismatch",
        )  # fmt: skip
        counted: dict[str, int] = {}
        for event in self.pair.since(since, *names):
            counted[event.name] = counted.get(event.name, 0) + 1
        return counted

    # --- The lease

    def owner(self, seconds: float = 15.0) -> Owner:
        """Whoever holds the lease now, and another daemon."""

        def look() -> Owner | None:
            with self.sql() as connection:
                row = connection.execute(
                    "SELECT token, daemon FROM outboxd.lease WHERE expires_at > clock_timestamp()"
                ).fetchone()
            if row is None:
                return None
            pid = int(row[1].rsplit(":", 1)[1])
            found = [daemon for daemon in self.pair.daemons[:2] if daemon.is_running and daemon.pid == pid]
            if not found:
                return None
            other = next(daemon for daemon in self.pair.daemons[:2] if daemon is not found[0])
            return Owner(row[0], found[0], other)

        owner: Owner = self.until(look, seconds, "a daemon owns the outbox")
        return owner

    def settled_pair(self) -> tuple[Owner, bool]:
        """The owner, and whether its standby is up and ready to take over."""
        with contextlib.suppress(NotObservedError):
            self.until(lambda: all(daemon.is_ready for daemon in self.pair.daemons[:2]), 10.0, "both are ready")
        owner = self.owner()
        return owner, owner.standby.is_ready

    def takeover(
        self, token: int, since: float, ready: bool, *, drains: bool = False, seconds: float = 30.0
    ) -> dict[str, Any]:
        """Wait until the lease is given anew; say how long after `since` (epoch) that was, and what stood in the way.
        An owner that `drains` before it gives the lease up needs its brokers for that.
        """

        def look() -> Any:
            with self.sql() as connection:
                return connection.execute(
                    "SELECT token, extract(epoch FROM at)::float8 FROM public.takeover WHERE token > %s"
                    " ORDER BY token LIMIT 1",
                    (token,),
                ).fetchone()

        found = self.until(look, seconds, "a takeover")
        hindered = [] if ready else ["standby not ready"]
        hindered += sorted(
            {
                each.kind
                for each in self.overlapping(since - 2.0, found[1])
                if each.hinders_lease or (drains and each.hinders_delivery)
            }
        )
        return {"takeover_seconds": round(found[1] - since, 3), "token": found[0], "hindered_by": hindered}

    def overlapping(self, since: float, until: float) -> Iterator[Happening]:
        """What happened between two times."""
        for each in list(self.happenings):
            if each.began_at <= until and each.ended_at >= since:
                yield each

    def hold(self, seconds: float) -> None:
        """A fault's own length: time has to pass. Cut short when the campaign ends."""
        self.stopping.wait(seconds)
