"""The stand: a real PostgreSQL and a real Kafka as children, on loopback, for one run of the benchmarks."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from outboxd.postgres.migrate import upgrade
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.postgres import PostgresServer

POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_prepared_transactions": "10",
}
PAYLOAD_BYTES = 512
SCHEMA = "outboxd"


@dataclass(frozen=True)
class Stand:
    """The servers, and where a daemon's files go."""

    postgres: PostgresServer
    kafka: KafkaCluster
    directory: Path
    database: str

    @property
    def url(self) -> str:
        return self.postgres.url(self.database)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return self.postgres.connect(self.database, autocommit=True)

    def daemon(self, relay: Mapping[str, object], *, name: str = "daemon") -> DaemonProcess:
        """A daemon with the shipped defaults but for `relay`."""
        sections = {
            "database": {"url": self.url},
            "kafka": {"bootstrap.servers": self.kafka.bootstrap},
            "relay": relay,
        }
        return DaemonProcess(self.directory, sections, name=name)


@contextmanager
def stand() -> Iterator[Stand]:
    """Start both servers, with an empty migrated database, and stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="outboxd-bench-") as directory:
        postgres = PostgresServer(settings=POSTGRES_SETTINGS)
        postgres.start()
        try:
            with KafkaCluster(brokers=1, java_options=("-Xmx1g", "-XX:+UseG1GC")) as kafka:
                upgrade(postgres.url("postgres"), SCHEMA)
                yield Stand(postgres, kafka, Path(directory), "postgres")
        finally:
            postgres.destroy()


def machine_facts() -> dict[str, object]:
    """What the figures depend on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def insert_rows(connection: psycopg.Connection[tuple[object, ...]], topic: str, rows: int, keys: int) -> int:
    """Insert rows of 512 bytes in one transaction; return the last id."""
    found = connection.execute(
        f"WITH new AS (INSERT INTO {SCHEMA}.outbox (topic, key, payload)"
        " SELECT %s, 'key-' || (i %% %s), convert_to(rpad(i || ' ', %s, i || ' '), 'UTF8')"
        " FROM generate_series(1, %s) AS i RETURNING id) SELECT max(id) FROM new",
        (topic, keys, PAYLOAD_BYTES, rows),
    ).fetchone()
    assert found is not None
    return int(str(found[0]))
