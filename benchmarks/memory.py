"""The memory: the daemon's largest resident size while rows of many sizes and many keys go, with the shipped defaults.

One daemon relays four backlogs, one after another, as a memory that does not come back would show: rows of 100 bytes,
rows of all sizes up to nearly 1 MB (as many between 100 and 200 bytes as between 400,000 and 800,000), the largest
alone, and small ones again. The peak is taken for each, and the largest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from benchmarks.checks import check_topic
from benchmarks.database import NONE_APART, Apart, Connection, empty, insert_rows, last_id, number, pending_rows
from benchmarks.drain import thawed_drain, warm
from benchmarks.stand import SCHEMA, Section, Stand
from benchmarks.usage import forget_memory_peak, memory_peak_bytes
from tests.support.daemon import DaemonProcess

SMALL_BYTES = 100
LARGE_BYTES = 990_000
MIXED_MEAN_BYTES = 107_600
"""Of sizes whose logarithm is spread evenly: (990,000 - 100) / ln(9,900)."""
SEED = 0.25


@dataclass(frozen=True)
class Memory:
    """One measured run. `mib_by_phase` are the peaks."""

    name: str
    rows: int
    bytes: int
    seconds: float
    daemon_memory_mib: float
    mib_by_phase: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        phases = ", ".join(f"{phase} {peak:.0f}" for phase, peak in self.mib_by_phase.items())
        return (
            f"peak {self.daemon_memory_mib:.0f} MiB ({phases}) over {self.rows:,} rows,"
            f" {self.bytes / 2**20:,.0f} MiB, {self.seconds:.1f} s"
        )


def memory(
    stand: Stand,
    name: str,
    relay: Section,
    *,
    keys: int,
    small_rows: int,
    large_bytes: int,
    apart: Apart = NONE_APART,
) -> Memory:
    """Measure with so many keys, small rows, twice, and bytes of mixed and of large ones each."""
    peaks: dict[str, float] = {}
    seconds = 0.0
    with stand.topic("memory") as topic, stand.connect() as connection:
        empty(connection)
        first_id = insert_rows(connection, topic, 1, keys)
        with stand.owner(relay, name=topic, freezes=True) as daemon:
            warm(connection, topic, keys)
            for phase in ("small", "mixed", "large", "small again"):
                seconds += _phase(
                    connection,
                    daemon,
                    topic,
                    phase,
                    keys=keys,
                    small_rows=small_rows,
                    large_bytes=large_bytes,
                    apart=apart,
                )
                peaks[phase] = round(memory_peak_bytes(daemon.pid) / 2**20, 1)
                forget_memory_peak(daemon.pid)
        rows = last_id(connection) - first_id + 1
        assert pending_rows(connection) == 0, "rows are left"
        check_topic(stand, topic, rows)
    return Memory(name, rows, 2 * (small_rows * SMALL_BYTES + large_bytes), seconds, max(peaks.values()), peaks)


def _phase(
    connection: Connection,
    daemon: DaemonProcess,
    topic: str,
    phase: str,
    *,
    keys: int,
    small_rows: int,
    large_bytes: int,
    apart: Apart,
) -> float:
    """Write a backlog while the daemon is frozen; return the seconds that it takes to relay it."""
    daemon.freeze()
    above_id = last_id(connection)
    if phase.startswith("small"):
        insert_rows(connection, topic, small_rows, keys, payload_bytes=SMALL_BYTES, apart=apart)
    elif phase == "mixed":
        _insert_mixed(connection, topic, max(100, large_bytes // MIXED_MEAN_BYTES), keys, apart)
    else:
        insert_rows(
            connection, topic, max(10, large_bytes // LARGE_BYTES), keys, payload_bytes=LARGE_BYTES, apart=apart
        )
    connection.execute(f"ANALYZE {SCHEMA}.outbox")
    return thawed_drain(connection, daemon, above_id)


def _insert_mixed(connection: Connection, topic: str, rows: int, keys: int, apart: Apart) -> None:
    """Sizes by a seeded generator of the server, the same in each run."""
    with connection.transaction():
        connection.execute("SELECT setseed(%s)", (SEED,))
        number(
            connection,
            f"WITH new AS (INSERT INTO {SCHEMA}.outbox (topic, key, payload)"
            " SELECT %s, CASE WHEN i %% 10 < %s THEN %s ELSE 'key-' || (i %% %s) END,"
            " convert_to(rpad(i || ' ', (%s * (%s / %s::float8) ^ random())::int, i || ' '), 'UTF8')"
            " FROM generate_series(1, %s::int) AS i RETURNING id) SELECT max(id) FROM new",
            topic, apart.of_ten, apart.key, keys, SMALL_BYTES, LARGE_BYTES, SMALL_BYTES, rows,
        )  # fmt: skip
