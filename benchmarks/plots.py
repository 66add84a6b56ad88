"""The plots of a results' file, as SVG.

    python -m benchmarks.plots benchmarks/results/2026-01-31T1200.json docs/performance/

Writes `backlog.svg` (rate against backlog), `latency.svg` (its distribution) and `cpu.svg` (where the CPU goes), each
from the medians of the runs; one whose benchmarks are not in the file is not written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from benchmarks.results import Results, read_results
from benchmarks.svg import COLOURS, Axis, line_chart, linear_axis, log_axis, stacked_bars

Figures = Mapping[str, object]
PARTS: Mapping[str, str] = {
    "daemon: relay": COLOURS[0],
    "daemon: fetch": COLOURS[5],
    "daemon: settle": COLOURS[2],
    "daemon: transactions": COLOURS[8],
    "daemon: librdkafka": COLOURS[4],
    "daemon: other threads": COLOURS[7],
    "PostgreSQL: fetch": COLOURS[3],
    "PostgreSQL: settle": COLOURS[1],
    "PostgreSQL: other": "#f0c9a8",
    "broker": "#4a4a4a",
    "bare loop": COLOURS[6],
}

WAITING = ("drain-10-keys", "drain-1-key")
"""A row of these is a round trip, at a hundred times the cost: beside it the others would not be seen."""


def backlog_plot(results: Results) -> str | None:
    """Rows a second against the rows pending."""
    runs = results.runs.get("backlog")
    if not runs:
        return None
    curve = {int(rows): rate for rows, rate in _medians(runs, "rows_per_second_by_pending").items()}
    if len(curve) < 2:
        return None
    x = log_axis(min(curve), max(curve), _count, "rows pending (logarithmic)")
    y = linear_axis(1.1 * max(curve.values()), _count, "rows a second")
    return line_chart("Rate against backlog", _note(results, runs), x, y, {"delete": sorted(curve.items())})


def latency_plot(results: Results) -> str | None:
    """Milliseconds from just before INSERT and COMMIT to the consumer, by percentile."""
    found = {name: runs for name, runs in results.runs.items() if name.startswith("latency-") and runs}
    if not found:
        return None
    by_name = {name: _medians(runs, "ms_by_percentile") for name, runs in found.items()}
    percentiles = [float(percent) for percent in next(iter(by_name.values()))]
    # Evenly spread: what matters lies in the last percent.
    spread = dict(enumerate(percentiles))
    x = Axis(0, len(spread) - 1, list(spread), lambda at: f"p{spread[round(at)]:g}", "percentile of the rows")
    values = [value for line in by_name.values() for value in line.values()]
    y = log_axis(min(values), max(values), lambda ms: f"{ms:g}", "milliseconds, commit to consumer (logarithmic)")
    lines = {
        name.removeprefix("latency-") + " rows/s" if name[-1].isdigit() else _described(name): [
            (float(at), value) for at, value in enumerate(line.values())
        ]
        for name, line in by_name.items()
    }
    return line_chart("Latency, one row a transaction", _note(results, *found.values()), x, y, lines)


def cpu_plot(results: Results) -> str | None:
    """Microseconds of CPU a row, by who used them, of all drains that are not one long wait; the bare loop first."""
    found = {
        name: runs
        for name, runs in results.runs.items()
        if runs and "daemon_cpu_us_per_row" in runs[0] and name not in WAITING
    }
    if not found:
        return None
    first = next(iter(found.values()))
    bars = {
        "bare loop": {
            "bare loop": _median(first, "bare_cpu_us_per_row"),
            "broker": _median(first, "bare_broker_us_per_row"),
        }
    }
    for name, runs in found.items():
        medians = _medians(runs, "cpu_us_per_row")
        bars[name] = {who: medians[who] for who in PARTS if medians.get(who, 0.0) > 0}
    used = {who for bar in bars.values() for who in bar}
    axis = linear_axis(
        max(sum(bar.values()) for bar in bars.values()), lambda spent: f"{spent:g}", "microseconds of CPU a row"
    )
    colours = {who: colour for who, colour in PARTS.items() if who in used}
    return stacked_bars("Where the CPU goes", _note(results, *found.values()), axis, bars, colours)


PLOTS: Mapping[str, Callable[[Results], str | None]] = {
    "backlog.svg": backlog_plot,
    "latency.svg": latency_plot,
    "cpu.svg": cpu_plot,
}


def _described(name: str) -> str:
    rate, _, how = name.removeprefix("latency-").partition("-")
    return f"{rate} rows/s, {how}"


def _note(results: Results, *runs: Sequence[Figures]) -> str:
    """Under the title: of how many runs, when, and on what."""
    machine = results.machine
    rounds = max(len(each) for each in runs)
    of = "one run" if rounds == 1 else f"medians of {rounds} runs"
    return (
        f"{of}, {str(machine['at'])[:10]}, {machine['cores']} cores,"
        f" PostgreSQL {str(machine['postgresql']).split()[0]}, Kafka {machine['kafka']}, 512-byte rows"
    )


def _median(runs: Sequence[Figures], field: str) -> float:
    return statistics.median(float(str(run[field])) for run in runs)


def _medians(runs: Sequence[Figures], field: str) -> dict[str, float]:
    """Of a field that holds figures by name, the median of each name."""
    found = [cast(Mapping[str, float], run[field]) for run in runs]
    return {name: statistics.median(figures.get(name, 0.0) for figures in found) for name in found[0]}


def _count(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 1_000 else f"{value:g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    results = read_results(options.results)
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        chart = draw(results)
        if chart is None:
            print(f"{name}: its benchmarks are not in {options.results}")
            continue
        (options.directory / name).write_text(chart)
        print(f"{options.directory / name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
