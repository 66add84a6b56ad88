"""Rows that PostgreSQL refuses to settle keep no daemon from its end, which says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.test_unsettled_rows import REFUSING
from tests.support.daemon import DaemonProcess, Section
from tests.support.mock_broker import MockCluster
from tests.support.postgres_fixtures import Database

SAID = "PostgreSQL refuses to settle rows that were sent"


@pytest.fixture
def sql(database: Database) -> Iterator[psycopg.Connection]:
    """Sixty rows of as many keys are pending."""
    with database.connect() as sql:
        sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload) SELECT 't', i::text, 'x' FROM generate_series(1, 60) AS i"
        )
        yield sql


@pytest.fixture
def daemon(database: Database, tmp_path: Path) -> Iterator[DaemonProcess]:
    with MockCluster() as mock:
        mock.create_topic("t")
        sections: dict[str, Section] = {
            "database": {"url": database.url},
            "kafka": {"bootstrap.servers": mock.bootstrap},
            "relay": {"max_in_flight_rows": 40, "batch_rows": 40, "shutdown_timeout": "10m"},
        }
        daemon = DaemonProcess(tmp_path, sections)
        yield daemon
        daemon.kill()


def test_a_stop_ends_soon_and_says_which_rows_stay(sql: psycopg.Connection, daemon: DaemonProcess) -> None:
    sql.execute(REFUSING.replace("old.id = %s", "old.id % 10 = 0"))
    daemon.start()
    daemon.wait_for_event("row_not_settled")
    ended = daemon.stop(timeout_seconds=60)
    assert ended.code == 0
    (told,) = daemon.events("ended")
    assert (told["reason"], told["unsettled_rows"]) == ("unsettled", 6)
    assert SAID in ended.err


def test_a_run_until_empty_ends_where_memory_is_full_of_refused_rows(
    sql: psycopg.Connection, daemon: DaemonProcess
) -> None:
    sql.execute(REFUSING.replace("old.id = %s", "true"))
    ended = daemon.run("--until-empty", timeout_seconds=120)
    assert ended.code == 69
    assert SAID in ended.err
