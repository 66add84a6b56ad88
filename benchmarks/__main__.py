"""All benchmarks, or those named: python -m benchmarks [--quick] [--rounds N] [NAME …].

Starts a PostgreSQL and a Kafka of its own, prints a line a run and the table of goals, and writes the figures with the
machine's facts to benchmarks/results/. Ends with 1 where a run failed or delivered anything wrong; a goal that is not
reached is said, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import machine_facts
from benchmarks.results import Results, fresh_path, goals_table, new_results
from benchmarks.stand import Stand, stand
from benchmarks.suite import QUICK, Run, Sizes, benchmarks, changed
from benchmarks.warming import warm_up


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, print a line each, and write the results with the machine's facts."""
    options = _options(arguments)
    sizes = changed(
        QUICK if options.quick else Sizes(),
        rows=options.rows,
        backlog_rows=options.backlog_rows,
        dead_rows=options.dead_rows,
        hold_seconds=options.hold_seconds,
        held_rows=options.held_rows,
    )
    chosen = {name: run for name, run in benchmarks(sizes).items() if not options.names or name in options.names}
    rounds = options.rounds or (1 if options.quick else 3)
    path = None if options.no_results else options.results or fresh_path(quick=options.quick)
    with stand() as place:
        results = new_results(path, machine_facts(place), sizes)
        results.forget(list(chosen))
        warm_up(place, sizes)
        for turn in range(rounds):
            for name, run in chosen.items():
                _run(place, name, run, results, label=f"{turn + 1}/{rounds} {name}")
    print(f"\n{goals_table(results, only_measured=bool(options.names))}")
    if path is not None:
        print(f"\nwritten to {path}; plots: python -m benchmarks.plots {path} DIRECTORY")
    return 1 if results.failures.keys() & chosen.keys() else 0


def _run(place: Stand, name: str, run: Run, results: Results, *, label: str) -> None:
    """Measure once. What fails is kept with its reason, and the others go on: the whole takes long."""
    began = time.perf_counter()
    try:
        result = run(place, name)
    except Exception as failure:  # noqa: BLE001 - whatever it was, the results say so and the run ends with 1
        reason = f"{type(failure).__name__}: {failure}"
        traceback.print_exc()
        print(f"{label}: FAILED after {time.perf_counter() - began:.0f} s: {reason}", flush=True)
        results.add_failure(name, reason)
        return
    took = time.perf_counter() - began
    print(f"{label}: {result} [{took:.0f} s]", flush=True)
    results.add(name, {**result.as_dict(), "took_seconds": round(took, 1)})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(benchmarks(QUICK))
    full = asdict(Sizes())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to try the suite itself")
    parser.add_argument("--rounds", type=int, help="how often each is measured; the median counts; default 3")
    parser.add_argument("--rows", type=int, help=f"rows of a drain; default {full['rows']:,}")
    parser.add_argument("--backlog-rows", type=int, help=f"`backlog`: default {full['backlog_rows']:,}")
    parser.add_argument("--dead-rows", type=int, help=f"`bloat`: default {full['dead_rows']:,}")
    parser.add_argument(
        "--hold-seconds", type=float, help=f"`bloat`: how old the snapshot is; default {full['hold_seconds']:g}"
    )
    parser.add_argument("--held-rows", type=int, help=f"`held-key`: default {full['held_rows']:,}")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="write there; where it exists, replace these benchmarks' figures"
    )
    parser.add_argument("--no-results", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
