"""Exactly once on a database that commits without waiting for the disk: what was settled outlives a crash."""

from __future__ import annotations

import queue

from outboxd.policy.exchange.messages import Event, Settled
from outboxd.policy.exchange.requests import Settlement
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.store.store import PostgresStore
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import value


def test_a_settled_transaction_outlives_a_crash_though_the_database_does_not_wait_for_the_disk(forgetful: Rig) -> None:
    rig = forgetful
    topic = rig.topic()
    rig.insert_many([topic], 100, keys=5)
    rig.sql.execute("ALTER DATABASE app SET synchronous_commit = off")
    daemon = rig.daemon(relay={"delivery": "exactly-once"}, cluster={"lease_ttl": "60s"})
    daemon.start()
    rig.wait_until("SELECT coalesce(sum(settled_transaction), 0) > 0 FROM outboxd.progress")
    rig.wait_until_settled()
    daemon.freeze()
    rig.sql.close()
    rig.database.server.kill()
    rig.database.server.start()
    rig.sql = rig.database.connect()
    assert rig.pending() == 0
    daemon.thaw()
    assert daemon.stop().code == 0
    rig.check().assert_holds()


def test_what_is_settled_without_its_transaction_outlives_a_crash_too(forgetful_database: Database) -> None:
    """Such as a row that was refused: it leaves memory, and who reads it as pending again sends it twice."""
    database = forgetful_database
    sql = database.connect()
    row_id: int = value(sql, "INSERT INTO outboxd.outbox (topic, payload) VALUES ('t', 'x') RETURNING id")
    holder: str = value(
        sql,
        "INSERT INTO outboxd.lease (outbox, holder, daemon, token, acquired_at, expires_at)"
        " VALUES ('default', gen_random_uuid(), 'here:1', 1, now(), 'infinity') RETURNING holder::text",
    )
    sql.execute("ALTER DATABASE app SET synchronous_commit = off")
    answers: queue.Queue[Event] = queue.Queue()
    engine = make_engine(database.url)
    store = PostgresStore(
        engine, answers.put, schema="outboxd", table="outbox", outbox="default", daemon="here:1", deletes=False,
        record_bytes_max=1_000_000, exactly_once=True,
    )  # fmt: skip
    try:
        store.set_owner(Owner(holder))
        settlement = Settlement(delivered_ids=[row_id], delivered_partitions=[0], delivered_offsets=[0], is_part=True)
        store.begin_settle(settlement, 1)
        answer = answers.get(timeout=20)
        assert isinstance(answer, Settled)
        assert answer.matched_rows == 1
        sql.close()
        database.server.kill()
    finally:
        store.close()
        engine.dispose()
    database.server.start()
    with database.connect() as sql:
        assert value(sql, "SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL") == 0
