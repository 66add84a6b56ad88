"""Through PgBouncer in transaction mode, where no two transactions need meet the same server connection."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import text

from outboxd.errors import DatabaseUnavailableError
from outboxd.policy.exchange.findings import Weight
from outboxd.postgres.checks.inspection import inspect
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.connections.failures import explained
from tests.support.pgbouncer import pooled as through_pgbouncer
from tests.support.pgbouncer import pooler_of
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig

NO_ANSWER = "PostgreSQL is not available: we were let in, and a statement got no answer for 0.5 s"


@pytest.fixture
def pooled(rig: Rig) -> Iterator[Rig]:
    with through_pgbouncer(rig):
        yield rig


def test_rows_are_relayed_once_and_in_order_and_the_lease_is_kept(pooled: Rig) -> None:
    topics = [pooled.topic(), pooled.topic()]
    pooled.insert_many(topics, 10_000, keys=100)
    daemon = pooled.daemon(relay={"batch_rows": 500}, cluster={"lease_ttl": "3s"})
    daemon.start()
    daemon.wait_for_event("owner")
    pooled.wait_until_settled()
    pooled.insert("no topic!")
    pooled.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter")
    pooled.insert_many(topics, 2_000, keys=100)
    pooled.wait_until_settled()
    # Longer than the lease lasts without a renewal.
    pooled.sql.execute("SELECT pg_sleep(4)")
    assert daemon.stop().code == 0
    assert not daemon.events("lease_lost")
    pooled.check().assert_holds(dead=1)


def test_no_setting_of_ours_stays_on_a_connection_that_others_use(pooled: Rig) -> None:
    topic = pooled.topic()
    daemon = pooled.daemon()
    daemon.start()
    daemon.wait_for_event("owner")
    pooled.insert_many([topic], 1_000, keys=10)
    pooled.wait_until_settled()
    assert pooled.database_url is not None
    found = set()
    for _ in range(20):
        with psycopg.connect(pooled.database_url, autocommit=True) as somebody:
            row = somebody.execute(
                "SELECT pg_backend_pid(), current_setting('lock_timeout'), current_setting('statement_timeout'),"
                " current_setting('idle_in_transaction_session_timeout'), current_setting('synchronous_commit')"
            ).fetchone()
            assert row is not None
            found.add(row[1:])
    assert found == {("0", "0", "0", "on")}
    assert daemon.stop().code == 0


def test_a_style_of_dates_that_the_database_asks_for_is_ours_to_change_and_stays_with_the_others(pooled: Rig) -> None:
    pooled.sql.execute(f"ALTER DATABASE {pooled.database.name} SET DateStyle = 'German'")
    assert pooled.database_url is not None
    engine = make_engine(pooled.database_url)
    try:
        with engine.connect() as ours:
            for _ in range(20):
                with psycopg.connect(pooled.database_url, autocommit=True) as somebody:
                    assert somebody.execute("SELECT (date '2026-11-30')::text").fetchone() == ("30.11.2026",)
                assert ours.scalar(text("SELECT timestamptz 'epoch'")) == datetime(1970, 1, 1, tzinfo=UTC)
    finally:
        engine.dispose()


def test_where_no_connection_of_a_pooler_is_free_a_command_says_so_and_does_not_wait_for_ever(
    database: Database,
) -> None:
    with pooler_of(database.server, server_connections=1) as pooler:
        url = pooler.url(database.name)
        engine = make_engine(url, statement_timeout_seconds=0.5, first_answer_seconds=0.5)
        try:
            with explained(), engine.connect() as known, psycopg.connect(url) as somebody:
                assert known.scalar(text("SELECT 1")) == 1
                somebody.execute("SELECT 1")
                for connection in (known, None):
                    with pytest.raises(DatabaseUnavailableError, match=NO_ANSWER) as caught, explained():
                        (connection or engine.connect()).execute(text("SELECT 1"))
                    assert "SHOW POOLS" in str(caught.value)
            with engine.connect() as later:
                assert later.scalar(text("SELECT 1")) == 1, "once one is free"
        finally:
            engine.dispose()


@pytest.mark.parametrize(("pool_mode", "is_named"), [("session", False), ("transaction", False), ("statement", True)])
def test_a_pooler_that_refuses_a_transaction_of_two_statements_is_named_by_check(
    pool_mode: str, is_named: bool, database: Database
) -> None:
    with pooler_of(database.server, pool_mode=pool_mode) as pooler:
        engine = make_engine(pooler.url(database.name))
        try:
            found = inspect(engine, "outboxd", "outbox", "default").findings
        finally:
            engine.dispose()
    problems = [finding for finding in found if finding.weight.is_problem]
    assert [finding.weight for finding in problems] == ([Weight.MISCONFIGURED] if is_named else [])
    for finding in problems:
        assert "transactions of more than one statement (transaction blocks not allowed" in finding.message
        assert "set pool_mode = transaction" in finding.remedy
    # Everything else is looked at all the same.
    assert any(finding.area == "grants" for finding in found)
