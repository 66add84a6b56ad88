"""Run the simulation: `python -m tests.simulation --seed 7`, or `--seeds 0-9999 --jobs 2`, or `--minutes 10`.

A violation is told with its seed and what concerns it, and the run goes on. The end tells what was tried: seeds, rows,
faults by kind, crashes, violations; `--summary FILE` writes the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.campaign import Outcome, Tally, outcomes, run_seed

PROGRESS_SECONDS = 15.0
SEEDS_WITHOUT_END = 1 << 40


def _seeds(arguments: argparse.Namespace) -> range:
    if arguments.seeds:
        first, _, last = arguments.seeds.replace("..", "-").partition("-")
        return range(int(first), int(last or first) + 1)
    return range(arguments.start, SEEDS_WITHOUT_END)


def _until(deadline: float, told: Iterator[Outcome]) -> Iterator[Outcome]:
    for outcome in told:
        yield outcome
        if time.monotonic() > deadline:
            return


def _tell_progress(tally: Tally, began: float) -> None:
    rate = tally.seeds / max(0.001, time.monotonic() - began)
    sys.stdout.write(
        f"{time.strftime('%H:%M:%S')}  {tally.seeds} seeds, {rate:.0f} a second, {tally.violations} fail\n"
    )
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed and tell its history if it fails")
    parser.add_argument("--seeds", help="a range, such as 0-9999")
    parser.add_argument("--minutes", type=float, help="run for so long at most")
    parser.add_argument("--start", type=int, default=0, help="the first seed, where --seeds is not given")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--failures-max", type=int, default=0, help="end after so many violations; 0: go on")
    parser.add_argument("--whole", action="store_true", help="tell the whole history, not what concerns the failure")
    parser.add_argument("--summary", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        outcome = run_seed(arguments.seed, whole=arguments.whole)
        told = outcome.failure or f"seed {arguments.seed}: all invariants hold"
        sys.stdout.write(f"{told}\n{dict(sorted(outcome.counts.items()))}\n")
        return 1 if outcome.failure else 0
    began = told_at = time.monotonic()
    deadline = began + arguments.minutes * 60 if arguments.minutes else float("inf")
    tally = Tally()
    for outcome in _until(deadline, outcomes(_seeds(arguments), arguments.jobs)):
        tally.add(outcome)
        if outcome.failure:
            sys.stdout.write(f"\n{outcome.failure}\n\n")
            sys.stdout.flush()
        if arguments.failures_max and tally.violations >= arguments.failures_max:
            break
        if time.monotonic() - told_at > PROGRESS_SECONDS:
            told_at = time.monotonic()
            _tell_progress(tally, began)
            if arguments.summary:
                _write(arguments.summary, tally, began)
    sys.stdout.write(f"{tally.told()}\n")
    if arguments.summary:
        _write(arguments.summary, tally, began)
    return 1 if tally.violations else 0


def _write(path: Path, tally: Tally, began: float) -> None:
    summary = {**tally.summary(), "seconds": round(time.monotonic() - began, 1)}
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
