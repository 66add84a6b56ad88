"""The drain: how fast a backlog goes, as a ratio to the bare produce loop in the same run.

The daemon is started and warmed by a few rows, then stopped by a signal while the backlog is written, so that neither
its start nor the writing is measured. The bare loop runs right before and right after, and the mean of both counts.
Every measured run is checked: each row settled, delivered once, in the order of its key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from benchmarks.bare import bare, mean
from benchmarks.checks import check_topic
from benchmarks.database import (
    NONE_APART,
    Apart,
    Connection,
    empty,
    insert_rows,
    last_id,
    pending_rows,
    statements,
    wait_until_settled,
    wal_bytes,
)
from benchmarks.stand import SCHEMA, Section, Stand
from benchmarks.usage import between, costs, cpu_seconds, memory_peak_bytes
from tests.support.daemon import DaemonProcess

WARM_ROWS = 20_000
KEYS = 1_000


@dataclass(frozen=True)
class Drain:
    """One measured run, with the bare loops that ran just before and after it. `cpu_us_per_row` is by who used it."""

    name: str
    rows: int
    rows_per_second: float
    bare_rows_per_second: float
    bare_cpu_us_per_row: float
    bare_broker_us_per_row: float
    ratio: float
    daemon_cpu_us_per_row: float
    daemon_memory_mib: float
    wal_bytes_per_row: float
    statements_per_row: float
    cpu_us_per_row: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{who} {spent:.1f}" for who, spent in self.cpu_us_per_row.items() if spent >= 0.05)
        return (
            f"{self.rows_per_second:,.0f} rows/s, ratio {self.ratio:.3f} to {self.bare_rows_per_second:,.0f};"
            f" {self.daemon_cpu_us_per_row:.1f} µs CPU and {self.wal_bytes_per_row:.0f} bytes of WAL a row,"
            f" {self.statements_per_row:.4f} statements a row, {self.daemon_memory_mib:.0f} MiB\n"
            f"    µs a row: {parts}; bare loop {self.bare_cpu_us_per_row:.1f}, its broker"
            f" {self.bare_broker_us_per_row:.1f}"
        )


def drain(
    stand: Stand,
    name: str,
    relay: Section,
    *,
    rows: int,
    bare_rows: int,
    keys: int = KEYS,
    apart: Apart = NONE_APART,
) -> Drain:
    """Measure one drain of `rows` rows with this `[relay]` section; the bare loops take `bare_rows`."""
    before = bare(stand, bare_rows)
    with stand.topic("drain") as topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(relay, name=topic, freezes=True) as daemon:
            warm(connection, topic, keys)
            daemon.freeze()
            above_id = last_id(connection)
            insert_rows(connection, topic, rows, keys, apart=apart)
            connection.execute(f"ANALYZE {SCHEMA}.outbox")
            wal_before, calls_before = wal_bytes(connection), statements(connection)
            cpu_before, costs_before = cpu_seconds(daemon.pid), costs(stand, connection, daemon.pid)
            took = thawed_drain(connection, daemon, above_id)
            spent = between(costs_before, costs(stand, connection, daemon.pid), rows)
            cpu = cpu_seconds(daemon.pid) - cpu_before
            wal, calls = wal_bytes(connection) - wal_before, statements(connection) - calls_before
            memory = memory_peak_bytes(daemon.pid)
        assert pending_rows(connection) == 0, "rows are left"
        bare_loop = mean((before, bare(stand, bare_rows)))
        check_topic(stand, topic, rows + WARM_ROWS)
    return Drain(
        name=name,
        rows=rows,
        rows_per_second=rows / took,
        bare_rows_per_second=bare_loop.rows_per_second,
        bare_cpu_us_per_row=bare_loop.cpu_us_per_row,
        bare_broker_us_per_row=bare_loop.broker_us_per_row,
        ratio=rows / took / bare_loop.rows_per_second,
        daemon_cpu_us_per_row=cpu / rows * 1e6,
        daemon_memory_mib=memory / 2**20,
        wal_bytes_per_row=wal / rows,
        statements_per_row=calls / rows,
        cpu_us_per_row=spent,
    )


def warm(connection: Connection, topic: str, keys: int = KEYS) -> None:
    """Have some rows relayed, so that connections, plans and code are as they are in a long run."""
    wait_until_settled(connection, insert_rows(connection, topic, WARM_ROWS, keys))


def thawed_drain(connection: Connection, daemon: DaemonProcess, above_id: int) -> float:
    """Let a frozen daemon go on; return the seconds until all rows above this id are settled."""
    to_id = last_id(connection)
    began = time.perf_counter()
    daemon.thaw()
    wait_until_settled(connection, to_id, above_id=above_id)
    return time.perf_counter() - began


def drain_rate(
    connection: Connection, daemon: DaemonProcess, topic: str, rows: int, *, keys: int = KEYS, key_prefix: str = "key"
) -> float:
    """Freeze the daemon, write so many rows, vacuum, and return the rows a second at which they are settled then.

    The vacuum and the checkpoint are made before, or their turn would come in some runs and not in others.
    """
    daemon.freeze()
    above_id = last_id(connection)
    insert_rows(connection, topic, rows, keys, key_prefix=key_prefix)
    tidy(connection)
    return rows / thawed_drain(connection, daemon, above_id)


def tidy(connection: Connection) -> None:
    """Do now what the database would do at some moment of its own choice."""
    connection.execute(f"VACUUM (ANALYZE) {SCHEMA}.outbox")
    connection.execute("CHECKPOINT")
