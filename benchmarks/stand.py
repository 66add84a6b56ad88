"""The stand: a real PostgreSQL and a real Kafka as children, on loopback, for one run of the benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from outboxd.postgres.migrate import upgrade
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
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
PARTITIONS = 6
SCHEMA = "outboxd"
ROLE = "stand"
"""Who the stand is in the database: the daemon is somebody else, so that their statements are counted apart."""
FROZEN_LEASE = {"lease_ttl": "30m"}
"""A daemon that is frozen while its backlog is written must not lose its lease meanwhile."""

Section = Mapping[str, object]


class NamedDaemon(DaemonProcess):
    """A daemon whose threads tell their names to the kernel."""

    module = "benchmarks.named_daemon"
    is_forked = False


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
        return self.postgres.connect(self.database, ROLE, autocommit=True)

    @contextmanager
    def topic(self, prefix: str) -> Iterator[str]:
        """A fresh topic, deleted at the end, so that the disk does not fill over a long run."""
        name = self.kafka.create_topic(fresh_name(prefix), partitions=PARTITIONS)
        try:
            yield name
        finally:
            self.kafka.delete_topic(name)

    @contextmanager
    def owner(
        self, relay: Section, routes: Sequence[Section] = (), *, name: str, freezes: bool = False
    ) -> Iterator[DaemonProcess]:
        """A daemon that owns the outbox, with the shipped defaults but for `relay` and `routes`.

        It is stopped in order at the end, and killed when something failed. One that `freezes` keeps its lease for
        long; how often it renews it is all that this changes.
        """
        sections: dict[str, Section] = {
            "database": {"url": self.url},
            "kafka": {"bootstrap.servers": self.kafka.bootstrap},
            "relay": relay,
        }
        if freezes:
            sections["cluster"] = FROZEN_LEASE
        daemon = NamedDaemon(self.directory, sections, routes, name=name)
        daemon.start()
        try:
            daemon.wait_for_event("owner")
            yield daemon
            daemon.thaw()
            ended = daemon.stop()
            assert ended.code == 0, f"the daemon ended with {ended.code}:\n{ended.err[-3000:]}"
        finally:
            daemon.kill()


@contextmanager
def stand() -> Iterator[Stand]:
    """Start both servers, with an empty migrated database, and stop them at the end."""
    with tempfile.TemporaryDirectory(prefix="outboxd-bench-") as directory:
        postgres = PostgresServer(settings=POSTGRES_SETTINGS)
        try:
            postgres.start()
            with KafkaCluster(brokers=1, java_options=("-Xmx1g", "-XX:+UseG1GC")) as kafka:
                upgrade(postgres.url("postgres"), SCHEMA)
                with postgres.connect("postgres", autocommit=True) as connection:
                    connection.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER")
                    if postgres.installation.has_module("pg_stat_statements"):
                        connection.execute("CREATE EXTENSION pg_stat_statements")
                yield Stand(postgres, kafka, Path(directory), "postgres")
        finally:
            postgres.destroy()
