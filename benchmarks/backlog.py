"""The backlog: how fast the first rows go with millions pending behind them, against a short one.

Before each measurement the table is filled up to so many pending rows, then a daemon is started: its first rows warm
it, the clock runs over the slice behind them, then it is stopped, so that nothing that it read ahead counts for the
next one. A short backlog is those first rows, one slice, and as many more as a daemon can read ahead: else it would
have read all before the clock starts, and the long one not. It is measured before all others and again after them, so
that the machine's mood counts on both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.checks import check_topic
from benchmarks.database import Connection, empty, insert_rows, last_id, number, pending_rows, wait_until_settled
from benchmarks.drain import KEYS, WARM_ROWS, tidy
from benchmarks.stand import SCHEMA, Stand
from benchmarks.usage import memory_peak_bytes

RELAY = {"after_publish": "delete"}
AHEAD_ROWS = 50_000
"""The shipped `max_in_flight_rows`: no more is read ahead."""
SHARES = (0.1, 0.2, 0.4, 1.0)
"""The backlogs on the way to the largest, for the curve."""


@dataclass(frozen=True)
class Backlog:
    """One measured run. `rows_per_second_by_pending` is the curve, by the rows pending (as text, for JSON)."""

    name: str
    rows: int
    short_rows: int
    rows_per_second: float
    short_rows_per_second: float
    ratio: float
    daemon_memory_mib: float
    rows_per_second_by_pending: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        curve = ", ".join(f"{int(rows):,}: {rate:,.0f}" for rows, rate in self.rows_per_second_by_pending.items())
        return (
            f"{self.rows_per_second:,.0f} rows/s with {self.rows:,} pending, ratio {self.ratio:.3f} to"
            f" {self.short_rows_per_second:,.0f} with {self.short_rows:,}; {self.daemon_memory_mib:.0f} MiB\n"
            f"    rows/s by rows pending: {curve}"
        )


def backlog(stand: Stand, name: str, *, rows: int, slice_rows: int, turns: int) -> Backlog:
    """Measure with up to `rows` rows pending: of each backlog, `slice_rows` for so many turns; the median counts."""
    least = WARM_ROWS + slice_rows + AHEAD_ROWS
    short, memory = _measured(stand, [least] * turns, slice_rows)
    sizes = sorted({max(round(rows * share), 2 * least) for share in SHARES})
    long, long_memory = _measured(stand, [size for size in sizes for _ in range(turns)], slice_rows)
    again, _ = _measured(stand, [least] * turns, slice_rows)
    short_rate = statistics.median(short + again)
    curve = {str(least): short_rate}
    for at, size in enumerate(sizes):
        curve[str(size)] = statistics.median(long[at * turns : (at + 1) * turns])
    rate = curve[str(sizes[-1])]
    return Backlog(name, sizes[-1], least, rate, short_rate, rate / short_rate, max(memory, long_memory), curve)


def _measured(stand: Stand, sizes: Sequence[int], slice_rows: int) -> tuple[list[float], float]:
    """The rates with these backlogs, one after another, and the peak of the daemons' memory in MiB."""
    with stand.topic("backlog") as topic, stand.connect() as connection:
        empty(connection)
        first_id = insert_rows(connection, topic, 1, KEYS)
        found = [_first_rows(stand, connection, topic, size, slice_rows) for size in sizes]
        # What was in flight when a daemon stopped was settled by it, so the rest is what was never sent.
        check_topic(stand, topic, last_id(connection) - first_id + 1 - pending_rows(connection))
        empty(connection)
    return [rate for rate, _ in found], max(memory for _, memory in found)


def _first_rows(stand: Stand, connection: Connection, topic: str, pending: int, slice_rows: int) -> tuple[float, float]:
    """Fill up to so many pending rows; return the rate at which the first slice goes, and the peak memory in MiB."""
    insert_rows(connection, topic, pending - pending_rows(connection), KEYS)
    tidy(connection)
    head = number(connection, f"SELECT id FROM {SCHEMA}.outbox WHERE published_at IS NULL ORDER BY id LIMIT 1")
    warm_id = head - 1 + WARM_ROWS
    with stand.owner(RELAY, name=topic) as daemon:
        wait_until_settled(connection, warm_id, above_id=head - 1)
        began = time.perf_counter()
        wait_until_settled(connection, warm_id + slice_rows, above_id=warm_id)
        took = time.perf_counter() - began
        memory = memory_peak_bytes(daemon.pid) / 2**20
    return slice_rows / took, memory
