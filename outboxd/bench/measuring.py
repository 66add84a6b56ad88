"""Drains and latencies, each with the real daemon started for it and warmed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from outboxd.bench.bare import KEYS, PAYLOAD_BYTES
from outboxd.bench.children import Child, Usage, bare_in_child, start_relay
from outboxd.bench.reading import STAMP, Reader, check_topic
from outboxd.bench.scratch import PARTITIONS, Scratch
from outboxd.bench.verdict import Drain, Latency, percentile
from outboxd.config import Settings
from outboxd.errors import UnavailableError
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.names import quoted

WARM_ROWS_MAX: Final = 10_000
WARM_SECONDS_MAX: Final = 60.0
INSERT_ROWS: Final = 10_000
LOOK_SECONDS: Final = 0.02
WARM_UP_SECONDS: Final = 1.0

Watch = Callable[[float], None]
"""Told how much of the measurement is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many rows, and for how long at most, each measurement takes; the rate of the latency's rows a second."""

    rows: int
    seconds: float
    latency_rows_per_second: float


class _Relay:
    """A daemon of the benchmark, owner of its outbox and warm."""

    def __init__(self, scratch: Scratch, settings: Settings, connection: Connection, topic: str) -> None:
        self._connection = connection
        self.table = f"{quoted(scratch.name)}.outbox"
        self.topic = topic
        self.child: Child = start_relay(settings)

    def warm(self, rows: int) -> None:
        """Have some rows relayed: by then it owns the lease, and knows the topic."""
        with self._connection.begin():
            last_id = self.insert(rows)
        deadline = time.monotonic() + WARM_SECONDS_MAX
        while not self.is_drained(last_id):
            self.child.ask()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the daemon did not relay {rows:,} rows within {WARM_SECONDS_MAX:g} s; try `outboxd check`"
                )
            time.sleep(LOOK_SECONDS)

    def insert(self, rows: int) -> int:
        """Insert rows within the open transaction; return the last id."""
        found = self._connection.exec_driver_sql(
            f"WITH new AS (INSERT INTO {self.table} (topic, key, payload)"
            " SELECT %(topic)s, 'key-' || (i %% %(keys)s), convert_to(rpad(i || ' ', %(bytes)s, i || ' '), 'UTF8')"
            " FROM generate_series(1, %(rows)s) AS i RETURNING id) SELECT max(id) FROM new",
            {"topic": self.topic, "keys": KEYS, "bytes": PAYLOAD_BYTES, "rows": rows},
        )
        return int(found.scalar_one())

    def is_drained(self, last_id: int) -> bool:
        """Whether nothing is pending; the cheap question first."""
        with self._connection.begin():
            asked = f"SELECT EXISTS (SELECT FROM {self.table} WHERE id = %(id)s AND published_at IS NULL)"
            if self._connection.exec_driver_sql(asked, {"id": last_id}).scalar_one():
                return False
            return self.pending() == 0

    def pending(self) -> int:
        """How many rows are not settled."""
        counted = self._connection.exec_driver_sql(f"SELECT count(*) FROM {self.table} WHERE published_at IS NULL")
        return int(counted.scalar_one())

    def usage(self) -> Usage:
        """What it has used so far."""
        usage: Usage = self.child.ask()
        return usage


def measure_drain(scratch: Scratch, settings: Settings, name: str, bounds: Bounds, watch: Watch) -> Drain:
    """Measure one drain, and the bare loop just before it. Every row is checked at the consumer.

    The backlog is written in one transaction while the daemon is idle, and the clock starts at its COMMIT: neither the
    daemon's start nor the writing is measured.

    Raises:
        BugError: a row was lost, repeated or out of order.
        OutboxdError: a server failed, or refused.
    """
    properties = settings.kafka.properties
    bare = bare_in_child(properties, scratch.topic(), bounds.rows, bounds.seconds)
    watch(0.1)
    topic = scratch.topic()
    warm_rows = min(WARM_ROWS_MAX, bounds.rows)
    with explained(), scratch.engine.connect() as plain:
        connection = plain.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            scratch.empty(connection)
        relay = _Relay(scratch, settings, connection, topic)
        try:
            relay.warm(warm_rows)
            watch(0.2)
            rows, last_id = _insert_backlog(relay, connection, bounds)
            before, machine_before, began = relay.usage(), _machine_busy_seconds(), time.perf_counter()
            connection.commit()
            _drain(relay, last_id, rows, before, deadline=began + bounds.seconds, watch=watch)
            took = time.perf_counter() - began
            after, machine_after = relay.usage(), _machine_busy_seconds()
            with connection.begin():
                settled = rows - relay.pending()
        finally:
            relay.child.end()
    if settled == rows:
        check_topic(properties, topic, PARTITIONS, warm_rows + rows)
    busy = None if machine_before is None or machine_after is None else machine_after - machine_before
    return Drain(
        name=name,
        rows=settled,
        is_whole=settled == rows,
        seconds=took,
        bare_rows_per_second=bare.rows_per_second,
        daemon_cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        fetch_seconds=after.fetch_seconds - before.fetch_seconds,
        settle_seconds=after.settle_seconds - before.settle_seconds,
        # The kernel counts in hundredths of a second, which a short drain has few of.
        machine_busy_share=None if busy is None else min(1.0, busy / took),
        daemon_memory_bytes=after.memory_peak_bytes,
    )


def _insert_backlog(relay: _Relay, connection: Connection, bounds: Bounds) -> tuple[int, int]:
    """Insert up to so many rows, for as long at most; the transaction stays open. Returns rows and the last id."""
    connection.begin()
    began, rows, last_id = time.monotonic(), 0, 0
    while rows < bounds.rows and time.monotonic() - began < bounds.seconds:
        batch = min(INSERT_ROWS, bounds.rows - rows)
        last_id = relay.insert(batch)
        rows += batch
    connection.exec_driver_sql(f"ANALYZE {relay.table}")
    return rows, last_id


def _drain(relay: _Relay, last_id: int, rows: int, before: Usage, *, deadline: float, watch: Watch) -> None:
    """Wait until all is settled, or until the deadline."""
    while time.perf_counter() < deadline:
        acknowledged = relay.usage().acknowledged_rows - before.acknowledged_rows
        watch(0.3 + 0.6 * min(1.0, acknowledged / rows))
        if acknowledged >= rows and relay.is_drained(last_id):
            return
        time.sleep(LOOK_SECONDS)


def measure_latency(scratch: Scratch, settings: Settings, bounds: Bounds, watch: Watch) -> Latency:
    """Measure from just before INSERT and COMMIT to the consumer, at a steady rate, one row a transaction.

    The first second is warm-up.

    Raises:
        OutboxdError: a server failed, or refused.
    """
    rate, topic = bounds.latency_rows_per_second, scratch.topic()
    reader = Reader(settings.kafka.properties, topic, PARTITIONS)
    with explained(), scratch.engine.connect() as plain, scratch.engine.connect() as writer:
        connection = plain.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            scratch.empty(connection)
        relay = _Relay(scratch, settings, connection, scratch.topic())
        try:
            relay.warm(100)
            reader.start()
            insert = _Writer(writer, scratch.name, topic, rate)
            warm_rows = insert.write(WARM_UP_SECONDS, lambda _: None)
            reader.wait(warm_rows)
            before, began = relay.usage(), time.perf_counter()
            rows = insert.write(bounds.seconds, watch)
            took = time.perf_counter() - began
            cpu_seconds = relay.usage().cpu_seconds - before.cpu_seconds
            reader.wait(warm_rows + rows)
        finally:
            if reader.ident is not None:
                reader.stop()
            relay.child.end()
    ages = sorted(reader.seconds[warm_rows:])
    p50, p90, p99 = (percentile(ages, percent) for percent in (50, 90, 99))
    return Latency(rows, rows / took, rate, p50, p90, p99, ages[-1], cpu_seconds / took)


class _Writer:
    """Inserts rows at a steady pace, each with the moment just before its INSERT in front of its payload."""

    def __init__(self, connection: Connection, schema: str, topic: str, rows_per_second: float) -> None:
        self._connection = connection
        self._statement = (
            f"INSERT INTO {quoted(schema)}.outbox (topic, key, payload) VALUES (%(topic)s, %(key)s, %(payload)s)"
        )
        self._topic = topic
        self._rows_per_second = rows_per_second
        self._filler = b"x" * (PAYLOAD_BYTES - STAMP.size)

    def write(self, seconds: float, watch: Watch) -> int:
        """Write for so long; a row that is late does not wait. Returns how many were written."""
        began, rows = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            due = rows / self._rows_per_second
            if due > now:
                time.sleep(min(due - now, seconds - now))
                continue
            row: Mapping[str, object] = {
                "topic": self._topic,
                "key": f"key-{rows % KEYS}",
                "payload": STAMP.pack(time.time()) + self._filler,
            }
            self._connection.exec_driver_sql(self._statement, dict(row))
            rows += 1
            watch(now / seconds)
        return rows


def _machine_busy_seconds() -> float | None:
    """CPU time of this whole machine so far, in seconds a core (proc(5)); None where nobody tells."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        ticks = [int(field) for field in fields]
    except (OSError, ValueError, IndexError):
        return None
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
