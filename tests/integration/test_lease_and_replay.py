"""The lease tells a replay whether published rows may have been deleted."""

from __future__ import annotations

import queue

import pytest

from outboxd.policy.messages import Event, LeaseGranted
from outboxd.postgres.engine import make_engine
from outboxd.postgres.leases import LeaseKeeper
from tests.support.postgres_fixtures import Database
from tests.support.rows import value


def hold_once(database: Database, *, deletes_published: bool) -> None:
    """Acquire the lease and release it."""
    events: queue.Queue[Event] = queue.Queue()
    engine = make_engine(database.url)
    keeper = LeaseKeeper(
        engine, events.put, lambda _: None, schema="outboxd", outbox="default", daemon="here:1", ttl_seconds=10,
        deletes_published=deletes_published,
    )  # fmt: skip
    keeper.start()
    try:
        assert isinstance(events.get(timeout=10), LeaseGranted)
    finally:
        keeper.close()
        engine.dispose()


@pytest.mark.parametrize(
    ("history", "purged", "expected"),
    [
        ([False], 0, 0),
        ([True], 0, None),
        ([False, True], 0, None),
        ([True, False], 0, None),
        ([False, False], 77, 77),
    ],
)
def test_the_lease_keeps_what_may_have_been_deleted(
    database: Database, history: list[bool], purged: int, expected: int | None
) -> None:
    for deletes_published in history:
        hold_once(database, deletes_published=deletes_published)
        with database.connect() as connection:
            connection.execute("UPDATE outboxd.lease SET deleted_through = deleted_through + %s", (purged,))
            purged = 0
    with database.connect() as connection:
        assert value(connection, "SELECT deleted_through FROM outboxd.lease") == expected
