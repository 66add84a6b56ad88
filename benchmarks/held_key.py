"""The held key: what a dead letter that holds a hot key with a long backlog costs the other keys.

The rate of the other keys' rows is measured before the dead letter is there, with it, and again after it is gone, each
time with a backlog of the same size. The held rows were read and put aside before the measured backlog is written.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass

from benchmarks.checks import check_topic
from benchmarks.database import Connection, empty, insert_rows, last_id, number, pending_rows, wait_until_settled
from benchmarks.drain import WARM_ROWS, drain_rate, tidy, warm
from benchmarks.stand import SCHEMA, Stand
from benchmarks.usage import memory_peak_bytes
from tests.support.children import wait_for

RELAY = {"after_publish": "delete"}
ROUTES = ({"topic": "*", "on_dead_letter": "hold-key"},)
HOT = "hot"
HOT_KEY = f"{HOT}-0"
_DEAD_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class HeldKey:
    """One measured run. `passed_seconds` is how long a row waited that was written right behind the held ones."""

    name: str
    held_rows: int
    rows: int
    rows_per_second: float
    free_rows_per_second: float
    ratio: float
    passed_seconds: float
    daemon_memory_mib: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows_per_second:,.0f} rows/s beside {self.held_rows:,} held rows, ratio {self.ratio:.3f} to"
            f" {self.free_rows_per_second:,.0f} without; passed in {self.passed_seconds:.1f} s;"
            f" {self.daemon_memory_mib:.0f} MiB"
        )


def held_key(stand: Stand, name: str, *, held_rows: int, rows: int, turns: int) -> HeldKey:
    """Measure with so many held rows; each rate is of `rows` rows of other keys, the median of so many turns."""
    free = _free_rates(stand, rows, turns)
    with stand.topic("held") as topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(RELAY, ROUTES, name=topic, freezes=True) as daemon:
            warm(connection, topic)
            _hold(connection, topic)
            insert_rows(connection, topic, held_rows, 1, key_prefix=HOT)
            tidy(connection)
            began, above_id = time.perf_counter(), last_id(connection)
            wait_until_settled(connection, insert_rows(connection, topic, 1, 1), above_id=above_id)
            passed = time.perf_counter() - began
            rates = [drain_rate(connection, daemon, topic, rows) for _ in range(turns)]
            memory = memory_peak_bytes(daemon.pid) / 2**20
        assert pending_rows(connection) == held_rows, "a held row is gone, or another is left"
        check_topic(stand, topic, WARM_ROWS + 1 + turns * rows, not_among={HOT_KEY.encode()})
        empty(connection)
    free += _free_rates(stand, rows, turns)
    rate, free_rate = statistics.median(rates), statistics.median(free)
    return HeldKey(name, held_rows, rows, rate, free_rate, rate / free_rate, passed, memory)


def _free_rates(stand: Stand, rows: int, turns: int) -> list[float]:
    with stand.topic("free") as topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(RELAY, ROUTES, name=topic, freezes=True) as daemon:
            warm(connection, topic)
            rates = [drain_rate(connection, daemon, topic, rows) for _ in range(turns)]
        check_topic(stand, topic, WARM_ROWS + turns * rows)
    return rates


def _hold(connection: Connection, topic: str) -> None:
    """Write a row that no broker would take: a header of it has a name that is the relay's own."""
    connection.execute(
        f"INSERT INTO {SCHEMA}.outbox (topic, key, payload, headers) VALUES (%s, %s, 'x', '{{\"outbox-id\": \"1\"}}')",
        (topic, HOT_KEY),
    )
    wait_for(
        lambda: bool(number(connection, f"SELECT count(*) FROM {SCHEMA}.dead_letter WHERE holds_key")),
        timeout_seconds=_DEAD_SECONDS_MAX,
        what="a dead letter that holds its key",
    )
