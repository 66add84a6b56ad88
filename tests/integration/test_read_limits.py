"""No statement of the daemon's reading side runs for ever, and what the role says of that is heeded."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import pytest

from outboxd.policy.exchange.reads import FetchFailed
from outboxd.policy.exchange.requests import FetchRequest, SweepRequest
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.connections.sessions import Connection, Session
from outboxd.postgres.store.store import READ_SECONDS_MAX
from outboxd.relay.ports import OutboxStore
from tests.contract.stores import PostgresBench
from tests.support.postgres_fixtures import Database


def fetch(store: OutboxStore) -> None:
    store.begin_fetch(FetchRequest(position=0, rows_max=1, bytes_max=1))


def sweep(store: OutboxStore) -> None:
    store.begin_sweep(SweepRequest(cursor=0, position=1, rows_max=1))


def load(store: OutboxStore) -> None:
    store.begin_load()


@pytest.mark.parametrize("begin", [fetch, sweep, load])
def test_a_read_that_takes_too_long_is_ended_and_told_of_in_words(
    database: Database, monkeypatch: pytest.MonkeyPatch, begin: Callable[[OutboxStore], None]
) -> None:
    monkeypatch.setattr("outboxd.postgres.store.store.READ_SECONDS_MAX", 0.2)
    bench = PostgresBench(database)
    with database.connect(autocommit=False) as another:
        another.execute("LOCK outboxd.outbox, outboxd.retry")
        begin(bench.store)

        failed = bench.answer()

        another.rollback()
    bench.close()
    assert isinstance(failed, FetchFailed)
    assert "took too long" in failed.message


@pytest.mark.parametrize(
    ("of_the_role", "in_force"), [("0", f"{READ_SECONDS_MAX / 60:g}min"), ("7s", "7s"), ("1h", "1min")]
)
def test_a_session_takes_the_shorter_limit_of_its_own_and_the_roles(
    database: Database, of_the_role: str, in_force: str
) -> None:
    with database.connect() as connection:
        connection.execute(f"ALTER DATABASE \"{database.name}\" SET statement_timeout = '{of_the_role}'".encode())
    engine = make_engine(database.url)
    told: SimpleQueue[object] = SimpleQueue()

    def ask(connection: Connection) -> None:
        row = connection.execute("SELECT current_setting('statement_timeout')").fetchone()
        told.put(row and row[0])

    session = Session(engine, "reader", statement_timeout_seconds=READ_SECONDS_MAX)
    session.submit(ask, told.put)

    assert told.get(timeout=10) == in_force
    session.close()
    with engine.connect() as pooled:
        # Where nobody wants a limit of his own, the role's stays.
        assert pooled.exec_driver_sql("SELECT current_setting('statement_timeout')").scalar_one() == of_the_role
    engine.dispose()
