"""The naive relay beside the bare loop: what a drain without any guarantee comes to in the same run."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.bare import bare, figures_of, mean
from benchmarks.database import empty, insert_rows, pending_rows
from benchmarks.drain import KEYS
from benchmarks.stand import SCHEMA, Stand


@dataclass(frozen=True)
class Naive:
    """One measured run, with the bare loops that ran just before and after it."""

    name: str
    rows: int
    rows_per_second: float
    bare_rows_per_second: float
    ratio: float
    cpu_us_per_row: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows_per_second:,.0f} rows/s without a guarantee, ratio {self.ratio:.3f} to"
            f" {self.bare_rows_per_second:,.0f}; {self.cpu_us_per_row:.1f} µs CPU a row"
        )


def naive(stand: Stand, name: str, *, settles: str, rows: int) -> Naive:
    """Measure it with so many rows; `settles` is `delete` or `mark`."""
    before = bare(stand, rows)
    with stand.topic("naive") as topic, stand.connect() as connection:
        empty(connection)
        insert_rows(connection, topic, rows, KEYS)
        connection.execute(f"ANALYZE {SCHEMA}.outbox")
        found = figures_of("naive_loop", stand.url, stand.kafka.bootstrap, settles)
        assert pending_rows(connection) == 0, "rows are left"
    bare_rows_per_second = mean((before, bare(stand, rows))).rows_per_second
    return Naive(
        name=name,
        rows=int(found["rows"]),
        rows_per_second=found["rows_per_second"],
        bare_rows_per_second=bare_rows_per_second,
        ratio=found["rows_per_second"] / bare_rows_per_second,
        cpu_us_per_row=found["cpu_us_per_row"],
    )
