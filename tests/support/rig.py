"""A rig: one migrated database, one Kafka and the daemons of one test, with what nearly every test asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.checker import Verdict, check, witness
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess, Section
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.postgres_fixtures import Database
from tests.support.rows import value


@dataclass
class Rig:
    """Everything between a writer and a consumer. `close` ends what was started."""

    database: Database
    kafka: KafkaCluster
    directory: Path
    topics: list[str] = field(default_factory=list)
    daemons: list[DaemonProcess] = field(default_factory=list)
    kafka_properties: Mapping[str, str] | None = None
    database_url: str | None = None

    def __post_init__(self) -> None:
        self.sql = self.database.connect()
        witness(self.sql)

    def topic(self, partitions: int = 3, config: Mapping[str, str] | None = None, *, prefix: str = "topic") -> str:
        """Make a fresh topic that the check will read."""
        name = fresh_name(prefix)
        self.kafka.create_topic(name, partitions=partitions, config=config)
        self.topics.append(name)
        return name

    def daemon(self, routes: Sequence[Section] = (), **sections: Section) -> DaemonProcess:
        """Make a daemon, not started yet, with these sections over the defaults of the tests."""
        kafka = dict(self.kafka_properties or {"bootstrap.servers": self.kafka.bootstrap})
        merged: dict[str, Section] = {
            "database": {"url": self.database_url or self.database.url, **sections.pop("database", {})},
            "kafka": {**kafka, **sections.pop("kafka", {})},
            **sections,
        }
        daemon = DaemonProcess(self.directory, merged, routes, name=f"daemon-{len(self.daemons)}")
        self.daemons.append(daemon)
        return daemon

    # --- Rows

    def insert(
        self,
        topic: str,
        key: str | None = "k",
        payload: bytes | None = b"x",
        *,
        headers: str = "{}",
        partition: int | None = None,
        created_at: str | None = None,
        available_at: str | None = None,
    ) -> int:
        """Commit one row; times are PostgreSQL's texts. Returns its id."""
        row_id: int = value(
            self.sql,
            "INSERT INTO outboxd.outbox (topic, key, payload, headers, partition, created_at, available_at)"
            " VALUES (%s, %s, %s, %s, %s, coalesce(%s::timestamptz, now()), %s::timestamptz) RETURNING id",
            topic, key, payload, headers, partition, created_at, available_at,
        )  # fmt: skip
        return row_id

    def insert_many(self, topics: Sequence[str], rows: int, keys: int, *, payload_bytes: int = 100) -> None:
        """Commit rows, round the topics, of as many keys, each with a payload of its own."""
        self.sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload)"
            " SELECT (%s::text[])[1 + i %% %s], 'key-' || ((i * 7919) %% %s),"
            " convert_to(rpad(i::text, %s, 'payload '), 'UTF8') FROM generate_series(1, %s) AS i",
            (list(topics), len(topics), keys, payload_bytes, rows),
        )
        self.sql.execute("ANALYZE outboxd.outbox")

    def count(self, query: str, *parameters: object) -> int:
        """The number that a query gives."""
        number: int = value(self.sql, query, *parameters)
        return number

    def pending(self) -> int:
        """How many rows are neither published nor dead."""
        return self.count("SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL")

    def dead_letters(self) -> dict[int, dict[str, Any]]:
        """The dead letters by the ids that their rows had."""
        with self.sql.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            cursor.execute(
                "SELECT id, outbox_id, topic, key, attempts, reason, error_code, error_message, holds_key, status, note"
                " FROM outboxd.dead_letter ORDER BY id"
            )
            return {letter["outbox_id"]: letter for letter in cursor.fetchall()}

    # --- Waiting and checking

    def wait_until(self, query: str, *parameters: object, timeout_seconds: float = 30.0) -> None:
        """Wait until a query gives true; a daemon's log is shown when it does not."""
        self._wait(lambda: bool(value(self.sql, query, *parameters)), query, timeout_seconds)

    def wait_until_settled(self, *, but: int = 0, timeout_seconds: float = 60.0) -> None:
        """Wait until at most `but` rows are pending."""
        self._wait(lambda: self.pending() <= but, f"at most {but} rows pending", timeout_seconds)

    def _wait(self, condition: Any, what: str, timeout_seconds: float) -> None:
        try:
            wait_for(condition, timeout_seconds=timeout_seconds, what=what, poll_seconds=0.02)
        except TimeoutError as late:
            logs = "\n".join(daemon.log_text[-2500:] for daemon in self.daemons)
            raise TimeoutError(f"{late}; pending: {self.pending()}; the daemons said:\n{logs}") from late

    def check(self, **exceptions: Any) -> Verdict:
        """Read the topics to their ends and compare; `exceptions` are those of `checker.check`."""
        return check(self.sql, self.kafka.consume(*self.topics), **exceptions)

    def close(self) -> None:
        """End all daemons and the connection."""
        for daemon in self.daemons:
            daemon.kill()
        self.sql.close()


@pytest.fixture
def rig(database: Database, kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig on the run's shared servers, with a database and topics of the test's own."""
    made = Rig(database, kafka, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def three(database: Database, kafka_three: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig on three brokers."""
    made = Rig(database, kafka_three, tmp_path)
    try:
        yield made
    finally:
        made.close()
