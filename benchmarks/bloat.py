"""The bloat: dead rows behind the head that no vacuum may remove, since a transaction holds an old snapshot.

With that transaction open, the daemon relays so many rows, which are deleted and stay in table and indexes as dead
ones. When the snapshot is so old as wanted, the rate is measured and then the latency. The rate without is measured
before, and again after the transaction has ended and a vacuum has cleaned up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from benchmarks.checks import check_topic
from benchmarks.database import Connection, empty, insert_rows, last_id, number, pending_rows, wait_until_settled
from benchmarks.drain import KEYS, WARM_ROWS, drain_rate, tidy, warm
from benchmarks.latency import measure
from benchmarks.stand import SCHEMA, Stand
from tests.support.daemon import DaemonProcess

RELAY = {"after_publish": "delete"}
LATENCY_ROWS_PER_SECOND = 1_000.0
_AT_ONCE = 200_000


@dataclass(frozen=True)
class Bloat:
    """One measured run. `dead_rows` is what PostgreSQL counted when the rate was measured."""

    name: str
    dead_rows: int
    held_seconds: float
    rows: int
    rows_per_second: float
    clean_rows_per_second: float
    ratio: float
    latency_rows_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    daemon_cores: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows_per_second:,.0f} rows/s behind {self.dead_rows:,} dead rows and a snapshot of"
            f" {self.held_seconds:.0f} s, ratio {self.ratio:.3f} to {self.clean_rows_per_second:,.0f};"
            f" at {self.latency_rows_per_second:,.0f} rows/s p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f}"
        )


def bloat(
    stand: Stand, name: str, *, dead_rows: int, hold_seconds: float, rows: int, latency_seconds: float, turns: int
) -> Bloat:
    """Measure behind so many dead rows once the snapshot is `hold_seconds` old.

    Each rate is of `rows` rows, the median of so many turns.
    """
    with stand.topic("bloat") as topic, stand.topic("bloat-latency") as latency_topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(RELAY, name=topic, freezes=True) as daemon:
            warm(connection, topic)
            clean = _rates(connection, daemon, topic, rows, turns)
            with _held_snapshot(stand) as held_since:
                relayed = _make_dead(connection, topic, dead_rows)
                time.sleep(max(0.0, held_since + hold_seconds - time.monotonic()))
                held = time.monotonic() - held_since
                rates = _rates(connection, daemon, topic, rows, turns)
                dead = _dead_rows(connection)
                assert dead >= dead_rows, f"{dead} dead rows instead of {dead_rows}: the snapshot kept none"
                found, latency_rows = measure(
                    stand, daemon, latency_topic, name,
                    rows_per_second=LATENCY_ROWS_PER_SECOND, seconds=latency_seconds,
                )  # fmt: skip
            tidy(connection)
            assert _dead_rows(connection) < dead_rows, "the vacuum removed nothing"
            clean += _rates(connection, daemon, topic, rows, turns)
        assert pending_rows(connection) == 0, "rows are left"
        check_topic(stand, latency_topic, latency_rows)
        check_topic(stand, topic, WARM_ROWS + relayed + 3 * turns * rows)
    rate, clean_rate = statistics.median(rates), statistics.median(clean)
    return Bloat(
        name=name,
        dead_rows=dead,
        held_seconds=held,
        rows=rows,
        rows_per_second=rate,
        clean_rows_per_second=clean_rate,
        ratio=rate / clean_rate,
        latency_rows_per_second=found.rows_per_second,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        max_ms=found.max_ms,
        daemon_cores=found.daemon_cores,
    )


def _rates(connection: Connection, daemon: DaemonProcess, topic: str, rows: int, turns: int) -> list[float]:
    return [drain_rate(connection, daemon, topic, rows) for _ in range(turns)]


@contextmanager
def _held_snapshot(stand: Stand) -> Iterator[float]:
    """A transaction with a snapshot, until the end; gives the moment of its start on the monotonic clock.

    It never reads the outbox, as a long report of the application would not, so that nothing waits for its locks.
    """
    with stand.connect() as holder:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT pg_current_snapshot()")
        yield time.monotonic()
        holder.execute("ROLLBACK")


def _make_dead(connection: Connection, topic: str, rows: int) -> int:
    """Have so many rows written and relayed; some at a time, as they come in a long day."""
    relayed = 0
    while relayed < rows:
        batch, above_id = min(_AT_ONCE, rows - relayed), last_id(connection)
        wait_until_settled(connection, insert_rows(connection, topic, batch, KEYS), above_id=above_id)
        relayed += batch
    return relayed


def _dead_rows(connection: Connection) -> int:
    """What the last VACUUM found dead and had to leave, and what died since."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    return number(
        connection,
        "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'outbox'",
        SCHEMA,
    )
