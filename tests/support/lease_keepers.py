"""Leases' keepers on a real database, each with what it told."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from outboxd.policy.exchange.messages import Event, LeaseGranted
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.leases import LeaseKeeper
from tests.support.postgres_fixtures import Database


@dataclass(frozen=True)
class Kept:
    """A lease's keeper, and what it told."""

    keeper: LeaseKeeper
    events: queue.Queue[Event]

    def granted(self) -> int:
        """Wait until it holds the lease; return the token."""
        event = self.events.get(timeout=10)
        assert isinstance(event, LeaseGranted)
        return event.token


@contextmanager
def keeper_of(
    database: Database,
    outbox: str = "default",
    daemon: str = "here:1",
    *,
    table: str = "outbox",
    ttl_seconds: float = 10.0,
    deletes_published: bool = False,
) -> Iterator[Kept]:
    """A keeper that has begun to acquire; it releases what it holds at the end."""
    engine = make_engine(database.url)
    events: queue.Queue[Event] = queue.Queue()
    keeper = LeaseKeeper(
        engine, events.put, lambda _: None, schema="outboxd", outbox=outbox, daemon=daemon, ttl_seconds=ttl_seconds,
        relayed_table=table, deletes_published=deletes_published,
    )  # fmt: skip
    keeper.start()
    try:
        yield Kept(keeper, events)
    finally:
        keeper.close()
        engine.dispose()
