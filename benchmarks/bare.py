"""The bare produce loop beside each drain, in a process of its own, on the same broker."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bare_produce import SECONDS_MAX
from benchmarks.stand import Stand
from benchmarks.usage import cpu_seconds


@dataclass(frozen=True)
class Bare:
    """What bare loops took: rows a second, and microseconds of CPU a row of their process and of the broker."""

    rows_per_second: float
    cpu_us_per_row: float
    broker_us_per_row: float


def bare(stand: Stand, rows: int) -> Bare:
    """Run the bare produce loop with so many rows."""
    with stand.topic("bare") as topic:
        broker_before = cpu_seconds(stand.kafka.pid(0))
        options = ("--topic", topic, "--rows", str(rows), "--json")
        found = figures_of("bare_produce", stand.kafka.bootstrap, *options)
        broker = cpu_seconds(stand.kafka.pid(0)) - broker_before
    return Bare(found["rows_per_second"], found["cpu_us_per_row"], broker / rows * 1e6)


def figures_of(loop: str, *arguments: str) -> dict[str, float]:
    """Run a loop of this package in a process of its own; return the figures that it prints as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{loop}", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * SECONDS_MAX)
    if answer.returncode != 0:
        raise RuntimeError(f"{loop} failed:\n{answer.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def mean(loops: Sequence[Bare]) -> Bare:
    """The mean of the loops on both sides of a drain."""
    return Bare(
        statistics.mean(loop.rows_per_second for loop in loops),
        statistics.mean(loop.cpu_us_per_row for loop in loops),
        statistics.mean(loop.broker_us_per_row for loop in loops),
    )
