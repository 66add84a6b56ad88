"""The goals: what a result has to reach, and whether it did."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Runs = Sequence[Mapping[str, object]]
Verdict = Literal["reached", "not reached", "not measured", "failed"]


@dataclass(frozen=True)
class Goal:
    """One figure of one benchmark and its bound; `scale` and `unit` are for people."""

    benchmark: str
    what: str
    field: str
    bound: float
    unit: str = ""
    at_most: bool = False
    scale: float = 1.0

    @property
    def bound_text(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {_text(self.bound * self.scale, self.unit)}"

    def seen(self, runs: Runs) -> float:
        """The median of the runs."""
        return statistics.median(_figures(runs, self.field))

    def seen_text(self, runs: Runs) -> str:
        """The median, and from where to where the runs went."""
        figures = _figures(runs, self.field)
        middle = _text(self.seen(runs) * self.scale, self.unit)
        if len(figures) == 1:
            return middle
        low, high = (_text(end(figures) * self.scale, "") for end in (min, max))
        return f"{middle} ({low} … {high})"

    def verdict(self, runs: Runs, *, failed: bool) -> Verdict:
        """Whether the median reaches the bound; a benchmark that failed once has not."""
        if failed:
            return "failed"
        if not runs:
            return "not measured"
        seen = self.seen(runs)
        return "reached" if (seen <= self.bound if self.at_most else seen >= self.bound) else "not reached"


def _cost(benchmark: str, how: str) -> Goal:
    return Goal(benchmark, f"database cost, {how}: statements a row", "statements_per_row", 0.02, at_most=True)


POLL_INTERVAL_MAX_MS = 100.0
"""The shipped `poll_interval_max`."""

GOALS: Sequence[Goal] = (
    Goal("drain-delete", "drain, delete: ratio to the bare loop", "ratio", 0.45),
    Goal("drain-mark", "drain, mark: ratio", "ratio", 0.30),
    Goal("drain-exactly-once", "drain, exactly-once, delete: ratio", "ratio", 0.40),
    Goal("latency-1000", "1,000 rows/s: p50", "p50_ms", 3.0, "ms", at_most=True),
    Goal("latency-1000", "1,000 rows/s: p99", "p99_ms", 8.0, "ms", at_most=True),
    Goal("latency-1000", "1,000 rows/s: CPU", "daemon_cores", 0.25, "% of a core", at_most=True, scale=100),
    Goal("latency-10-listen", "10 rows/s, listening: p50", "p50_ms", 5.0, "ms", at_most=True),
    Goal("latency-10", "10 rows/s, polling: p50", "p50_ms", POLL_INTERVAL_MAX_MS + 3.0, "ms", at_most=True),
    Goal("idle", "idle: CPU", "daemon_cores", 0.01, "% of a core", at_most=True, scale=100),
    Goal("idle", "idle: statements", "statements_per_second", 12.0, "/s", at_most=True),
    Goal("idle-listen", "idle, listening: CPU", "daemon_cores", 0.01, "% of a core", at_most=True, scale=100),
    Goal("idle-listen", "idle, listening: statements", "statements_per_second", 2.0, "/s", at_most=True),
    Goal("memory", "memory, all sizes to 990,000 bytes: peak", "daemon_memory_mib", 150.0, "MiB", at_most=True),
    Goal("memory-exactly-once", "the same, exactly-once: peak", "daemon_memory_mib", 150.0, "MiB", at_most=True),
    Goal("memory-300-keys", "the same, 300 keys: peak", "daemon_memory_mib", 150.0, "MiB", at_most=True),
    Goal("memory-49-keys", "the same, 49 keys, most without one", "daemon_memory_mib", 150.0, "MiB", at_most=True),
    Goal("backlog", "long backlog: rate against a short one", "ratio", 0.9),
    Goal("backlog", "long backlog: peak memory", "daemon_memory_mib", 150.0, "MiB", at_most=True),
    Goal("bloat", "dead rows, held snapshot: rate against none", "ratio", 0.8),
    Goal("bloat", "dead rows, held snapshot: p99", "p99_ms", 25.0, "ms", at_most=True),
    _cost("drain-delete", "delete"),
    _cost("drain-mark", "mark"),
    _cost("drain-exactly-once", "exactly-once"),
    Goal("drain-100-keys", "100 keys, in order: ratio", "ratio", 0.15),
    Goal("drain-10-keys", "10 keys, in order", "rows_per_second", 20_000, "rows/s"),
    Goal("drain-1-key", "one key, in order", "rows_per_second", 2_000, "rows/s"),
    Goal("exactly-once-1-key", "exactly-once, one key: ratio", "ratio", 0.30),
    Goal("held-key", "held hot key: the others' rate against none", "ratio", 0.95),
)


def _figures(runs: Runs, field: str) -> list[float]:
    return [float(str(run[field])) for run in runs]


def _text(value: float, unit: str) -> str:
    if abs(value) >= 1_000:
        number = f"{value:,.0f}"
    else:
        number = f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4}f}".rstrip("0").removesuffix(".")
    return f"{number} {unit}".strip().replace(" %", "%")
