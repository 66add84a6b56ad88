"""Of an application that deletes rows while they are settled, and the settlement, the settlement gives way."""

from __future__ import annotations

import queue
import threading

import psycopg
import pytest

from outboxd.policy.exchange.messages import Event, SettleFailed
from outboxd.policy.exchange.requests import Settlement
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.store.store import PostgresStore
from tests.support.children import wait_for
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{}'"


@pytest.mark.parametrize("deletes", [False, True])
def test_a_deadlock_with_a_settlement_does_not_cost_the_application_its_transaction(
    database: Database, deletes: bool
) -> None:
    sql = database.connect()
    holder: str = value(
        sql,
        "INSERT INTO outboxd.lease (outbox, holder, daemon, token, acquired_at, expires_at)"
        " VALUES ('default', gen_random_uuid(), 'here:1', 1, now(), 'infinity') RETURNING holder::text",
    )
    insert = "INSERT INTO outboxd.outbox (topic, payload) VALUES ('t', 'x') RETURNING id"
    ids: list[int] = [value(sql, insert) for _ in range(3)]
    first, second, third = ids
    application, other = database.connect(autocommit=False), database.connect(autocommit=False)
    application.execute("SET application_name = 'application'")
    application.execute("DELETE FROM outboxd.outbox WHERE id = %s", (third,))
    other.execute("SELECT FROM outboxd.outbox WHERE id = %s FOR UPDATE", (second,))
    answers: queue.Queue[Event] = queue.Queue()
    engine = make_engine(database.url)
    store = PostgresStore(
        engine, answers.put, schema="outboxd", table="outbox", outbox="default", daemon="here:1", deletes=deletes,
        record_bytes_max=1_000_000,
    )  # fmt: skip
    store.set_owner(Owner(holder))
    failed: list[psycopg.Error] = []

    def cancel_the_first() -> None:
        try:
            application.execute("DELETE FROM outboxd.outbox WHERE id = %s", (first,))
            application.commit()
        except psycopg.Error as error:
            failed.append(error)

    cancelling = threading.Thread(target=cancel_the_first)
    try:
        store.begin_settle(Settlement(delivered_ids=ids, delivered_partitions=[0] * 3, delivered_offsets=ids), 1)
        wait_for(lambda: value(sql, WAITS.format("outboxd")), timeout_seconds=20, what="the settlement waits")
        # The application waits first, so that it is the first that PostgreSQL looks for a deadlock for.
        cancelling.start()
        # Or it is through already, where the machine was so slow that the settlement has given way to it.
        wait_for(
            lambda: value(sql, WAITS.format("application")) or not cancelling.is_alive(),
            timeout_seconds=20,
            what="the application waits",
        )
        other.rollback()
        answer = answers.get(timeout=20)
        cancelling.join(20)
    finally:
        store.close()
        engine.dispose()
        for connection in (application, other):
            connection.close()
    assert not failed
    assert isinstance(answer, SettleFailed)
    assert answer.refused
    assert value(sql, "SELECT array_agg(id) FROM outboxd.outbox WHERE published_at IS NULL") == [second]
    sql.close()
