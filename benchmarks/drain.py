"""The drain: how fast a backlog goes, as a ratio to the bare produce loop of as many rows in the same run.

The daemon is started and warmed by a few rows, then stopped by a signal while the backlog is written, so that neither
its start nor the writing is measured. Every measured run is checked: each row settled, delivered once, in the order of
its key.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from benchmarks.stand import SCHEMA, Stand, insert_rows
from benchmarks.usage import cpu_seconds, memory_peak_bytes
from tests.support.children import wait_for
from tests.support.kafka_fixtures import fresh_name

WARM_ROWS = 20_000
DRAIN_SECONDS_MAX = 300.0
PARTITIONS = 6


@dataclass(frozen=True)
class Drain:
    """One measured run, with the bare loop that ran just before it."""

    name: str
    rows: int
    rows_per_second: float
    bare_rows_per_second: float
    ratio: float
    daemon_cpu_us_per_row: float
    daemon_memory_mib: float
    wal_bytes_per_row: float
    statements_per_row: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def bare_rate(stand: Stand, rows: int) -> float:
    """Rows a second of the bare produce loop, in a process of its own."""
    topic = stand.kafka.create_topic(fresh_name("bare"), partitions=PARTITIONS)
    command = [
        sys.executable,
        "-m",
        "benchmarks.bare_produce",
        stand.kafka.bootstrap,
        "--topic",
        topic,
        "--rows",
        str(rows),
    ]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DRAIN_SECONDS_MAX).stdout
    stand.kafka.delete_topic(topic)
    return float(out.split(" s: ")[1].split(" rows/s")[0].replace(",", ""))


def drain(
    stand: Stand, name: str, relay: Mapping[str, object], *, rows: int, keys: int = 1_000, check: bool = True
) -> Drain:
    """Measure one drain of `rows` rows with this `[relay]` section."""
    bare = bare_rate(stand, rows)
    topic = stand.kafka.create_topic(fresh_name("drain"), partitions=PARTITIONS)
    with stand.connect() as connection:
        connection.execute(f"TRUNCATE {SCHEMA}.outbox, {SCHEMA}.progress")
        daemon = stand.daemon(relay, name=topic)
        daemon.start()
        try:
            daemon.wait_for_event("owner")
            _drained(connection, insert_rows(connection, topic, WARM_ROWS, keys))
            daemon.freeze()
            last_id = insert_rows(connection, topic, rows, keys)
            connection.execute(f"ANALYZE {SCHEMA}.outbox")
            wal_before = _wal(connection)
            calls_before = _statements(connection)
            cpu_before = cpu_seconds(daemon.pid)
            began = time.perf_counter()
            daemon.thaw()
            _drained(connection, last_id)
            took = time.perf_counter() - began
            cpu = cpu_seconds(daemon.pid) - cpu_before
            wal, calls = _wal(connection) - wal_before, _statements(connection) - calls_before
            memory = memory_peak_bytes(daemon.pid)
        finally:
            daemon.stop()
    if check:
        check_topic(stand, topic, rows + WARM_ROWS)
    stand.kafka.delete_topic(topic)
    rate = rows / took
    return Drain(name, rows, rate, bare, rate / bare, cpu / rows * 1e6, memory / 2**20, wal / rows, calls / rows)


def check_topic(stand: Stand, topic: str, rows: int) -> None:
    """Raise AssertionError unless the topic holds so many rows, each once, in the order of its key."""
    last: dict[bytes | None, int] = {}
    seen: set[int] = set()
    for record in stand.kafka.consume(topic, until=rows, timeout_seconds=DRAIN_SECONDS_MAX):
        row_id = int(record.header("outbox-id") or b"0")
        assert row_id not in seen, f"row {row_id} came twice"
        assert row_id > last.get(record.key, 0), f"row {row_id} came after {last[record.key]}"
        seen.add(row_id)
        last[record.key] = row_id
    assert len(seen) == rows, f"{len(seen)} rows instead of {rows}"


def _drained(connection: object, last_id: int) -> None:
    def is_drained() -> bool:
        (pending,) = connection.execute(  # type: ignore[attr-defined]
            f"SELECT EXISTS (SELECT FROM {SCHEMA}.outbox WHERE id = %s AND published_at IS NULL)", (last_id,)
        ).fetchone()
        if pending:
            return False
        (left,) = connection.execute(  # type: ignore[attr-defined]
            f"SELECT count(*) FROM {SCHEMA}.outbox WHERE published_at IS NULL"
        ).fetchone()
        return bool(left == 0)

    wait_for(is_drained, timeout_seconds=DRAIN_SECONDS_MAX, what="the backlog to be settled")


def _wal(connection: object) -> int:
    (bytes_,) = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()  # type: ignore[attr-defined]
    return int(bytes_)


def _statements(connection: object) -> int:
    """Transactions committed so far; the daemon's statements are one each, and the stand itself makes few."""
    (count,) = connection.execute(  # type: ignore[attr-defined]
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(count)
