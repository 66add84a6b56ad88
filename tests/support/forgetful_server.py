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
def forgetful(kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig on a server that writes to the disk what nobody waits for only when somebody else's commit does."""
    server = PostgresServer(
        {
            "wal_writer_delay": "10s",
            "wal_writer_flush_after": "1GB",
            "wal_buffers": "16MB",
            "bgwriter_lru_maxpages": "0",
        }
    )
    rig = None
    try:
        server.start()
        with server.connect() as connection:
            connection.execute("CREATE DATABASE app")
        upgrade(server.url("app"), SCHEMA)
        rig = Rig(Database(server, "app"), kafka, tmp_path)
        yield rig
    finally:
        if rig is not None:
            rig.close()
        server.destroy()
