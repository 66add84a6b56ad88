"""All benchmarks, or those named: python -m benchmarks [--rows N] [--rounds N] [NAME …]."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.drain import Drain, drain
from benchmarks.latency import Latency, latency
from benchmarks.stand import Stand, machine_facts, stand

RESULTS = Path(__file__).parent / "results"
Result = Drain | Latency

DRAINS: Mapping[str, Mapping[str, object]] = {
    "drain-delete": {"after_publish": "delete"},
    "drain-mark": {"after_publish": "mark"},
    "drain-exactly-once": {"after_publish": "delete", "delivery": "exactly-once"},
}
KEYS: Mapping[str, int] = {"drain-100-keys": 100, "drain-10-keys": 10, "drain-1-key": 1}
LATENCIES: Mapping[str, tuple[Mapping[str, object], float, float]] = {
    "latency-1000": ({}, 1000.0, 20.0),
    "latency-10": ({}, 10.0, 20.0),
    "latency-10-listen": ({"listen": True}, 10.0, 20.0),
    "latency-1000-exactly-once": ({"delivery": "exactly-once"}, 1000.0, 20.0),
}


def _benchmarks(rows: int) -> dict[str, Callable[[Stand, str], Result]]:
    found: dict[str, Callable[[Stand, str], Result]] = {}
    for name, relay in DRAINS.items():
        found[name] = lambda place, label, relay=relay: drain(place, label, relay, rows=rows)  # type: ignore[misc]
    for name, keys in KEYS.items():
        found[name] = lambda place, label, keys=keys: drain(  # type: ignore[misc]
            place, label, {"after_publish": "delete"}, rows=max(2_000, min(rows, keys * 5_000)), keys=keys
        )
    for name, (relay, rate, seconds) in LATENCIES.items():
        found[name] = lambda place, label, relay=relay, rate=rate, seconds=seconds: latency(  # type: ignore[misc]
            place, label, relay, rows_per_second=rate, seconds=seconds
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, print a line each, and write the results with the machine's facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = _benchmarks(0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--no-results", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = {
        name: run for name, run in _benchmarks(options.rows).items() if not options.names or name in options.names
    }
    results: dict[str, list[dict[str, object]]] = {}
    with stand() as place:
        for turn in range(options.rounds):
            for name, run in chosen.items():
                result = run(place, name)
                results.setdefault(name, []).append(result.as_dict())
                print(f"{turn + 1}/{options.rounds} {_line(result)}", flush=True)
    print()
    for name, runs in results.items():
        print(f"{name}: {_median(runs)}")
    if not options.no_results:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{time.strftime('%Y-%m-%d')}.json"
        path.write_text(json.dumps({"machine": machine_facts(), "results": results}, indent=1) + "\n")
    return 0


def _line(result: Result) -> str:
    if isinstance(result, Drain):
        return (
            f"{result.name}: {result.rows_per_second:,.0f} rows/s,"
            f" ratio {result.ratio:.3f} to {result.bare_rows_per_second:,.0f};"
            f" {result.daemon_cpu_us_per_row:.1f} µs CPU and {result.wal_bytes_per_row:.0f} bytes of WAL a row,"
            f" {result.statements_per_row:.4f} statements a row, {result.daemon_memory_mib:.0f} MiB"
        )
    return (
        f"{result.name}: {result.rows_per_second:,.0f} rows/s, p50 {result.p50_ms:.1f} ms, p90 {result.p90_ms:.1f},"
        f" p99 {result.p99_ms:.1f}, max {result.max_ms:.1f}; {result.daemon_cores:.0%} of a core"
    )


def _median(runs: Sequence[Mapping[str, object]]) -> str:
    numbers = {
        field: statistics.median(float(str(run[field])) for run in runs)
        for field, value in runs[0].items()
        if isinstance(value, int | float)
    }
    return ", ".join(f"{field} {value:,.3f}" for field, value in numbers.items())


if __name__ == "__main__":
    sys.exit(main())
