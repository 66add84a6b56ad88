"""A server of its own that loses in a crash whatever commit nobody waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.postgres.migrate import upgrade
from tests.support.kafka import KafkaCluster
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import SCHEMA, Database
from tests.support.rig import Rig


@pytest.fixture
def forgetful_database() -> Iterator[Database]:
    """A database on a server that writes to the disk what nobody waits for only when somebody else's commit does."""
    server = PostgresServer(
        {
            "wal_writer_delay": "10s",
            "wal_writer_flush_after": "1GB",
            "wal_buffers": "16MB",
            "bgwriter_lru_maxpages": "0",
        }
    )
    try:
        server.start()
        with server.connect() as connection:
            connection.execute("CREATE DATABASE app")
        upgrade(server.url("app"), SCHEMA)
        yield Database(server, "app")
    finally:
        server.destroy()


@pytest.fixture
def forgetful(forgetful_database: Database, kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig on that server."""
    rig = Rig(forgetful_database, kafka, tmp_path)
    try:
        yield rig
    finally:
        rig.close()
