"""A settlement that an owner left behind keeps no successor from the lease: not by a lock, not by a slow disk."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from outboxd.policy.exchange.messages import Event, LeaseGranted, SettleFailed
from outboxd.policy.exchange.requests import Settlement
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.leases import LeaseKeeper
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.store.store import PostgresStore
from tests.support.children import wait_for
from tests.support.pgbouncer import pooler_of
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

TTL_SECONDS = 2.0
HANGING = """
CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(120);
    RETURN NEW;
END $$;
CREATE TRIGGER hang BEFORE UPDATE ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.hang();
"""


@pytest.fixture(params=["direct", "pooled"])
def engine(request: pytest.FixtureRequest, database: Database) -> Iterator[Engine]:
    """Straight to PostgreSQL, and by PgBouncer in transaction mode, where no session is anybody's own."""
    if request.param == "direct":
        made = make_engine(database.url)
        yield made
        made.dispose()
        return
    with pooler_of(database.server) as pooler:
        made = make_engine(pooler.url(database.name))
        yield made
        made.dispose()


@pytest.mark.parametrize("way", ["locked", "hanging"])
def test_a_lease_is_taken_over_in_time_though_the_last_settlement_does_not_end(
    database: Database, engine: Engine, way: str
) -> None:
    sql = database.connect()
    answers: queue.Queue[Event] = queue.Queue()
    # The owner's lease is renewed no more: it is frozen, and its settlement is in the server.
    row = sql.execute(
        "INSERT INTO outboxd.lease (outbox, holder, daemon, token, acquired_at, expires_at) VALUES ('default',"
        " gen_random_uuid(), 'frozen:1', 1, now(), clock_timestamp() + make_interval(secs => %s))"
        " RETURNING holder::text, expires_at",
        (TTL_SECONDS,),
    ).fetchone()
    assert row is not None
    holder, expired_at = row
    row_id: int = value(sql, "INSERT INTO outboxd.outbox (topic, payload) VALUES ('t', 'x') RETURNING id")
    blocker = database.connect(autocommit=False)
    if way == "locked":
        blocker.execute("SELECT id FROM outboxd.outbox FOR UPDATE")
    else:
        sql.execute(HANGING)
    store = PostgresStore(
        engine, answers.put, schema="outboxd", table="outbox", outbox="default", daemon="frozen:1", deletes=False,
        record_bytes_max=1_000_000, lease_ttl_seconds=TTL_SECONDS,
    )  # fmt: skip
    store.set_owner(Owner(str(holder)))
    store.begin_settle(Settlement(delivered_ids=[row_id], delivered_partitions=[0], delivered_offsets=[0]), 1)
    granted: queue.Queue[Event] = queue.Queue()
    keeper = LeaseKeeper(
        engine,
        granted.put,
        lambda _: None,
        schema="outboxd",
        outbox="default",
        daemon="next:1",
        ttl_seconds=TTL_SECONDS,
    )
    try:
        wait_for(
            lambda: bool(
                value(sql, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'WITH ours%%' AND state = 'active'")
            ),
            timeout_seconds=20,
            what="the settlement is under way",
        )
        asked_at = value(sql, "SELECT clock_timestamp()")
        keeper.start()
        assert isinstance(granted.get(timeout=60), LeaseGranted)
        assert isinstance(answers.get(timeout=60), SettleFailed)
    finally:
        keeper.close()
        blocker.close()
        store.close()
    late_seconds = value(
        sql, "SELECT extract(epoch FROM acquired_at - greatest(%s, %s)) FROM outboxd.lease", expired_at, asked_at
    )
    sql.close()
    assert late_seconds <= 2.0
