"""Warming: runs that nobody measures, until the broker's virtual machine has compiled what the measured ones need.

A broker that was just started takes three times the processor of one that has run for a while. It warms up for each
kind of work apart: large requests, as a bare loop sends them; the smaller ones of relays in a backlog; and those of a
record or two, which few keys or little traffic bring, where its compiler holds rows up by tens of milliseconds.
"""

from __future__ import annotations

from benchmarks.drain import drain
from benchmarks.latency import latency
from benchmarks.stand import Stand
from benchmarks.suite import DELETE, EXACTLY_ONCE, Sizes

TIMES = 3
FEW_KEYS = 10
ROWS_PER_SECOND = 1000.0


def warm_up(stand: Stand, sizes: Sizes) -> None:
    """Run drains with their bare loops, a drain of few keys, and steady traffic to a consumer."""
    for _ in range(TIMES):
        for relay in (DELETE, EXACTLY_ONCE):
            drain(stand, "warm-up", relay, rows=sizes.rows, bare_rows=sizes.rows)
    drain(stand, "warm-up", DELETE, rows=sizes.rows // 2, bare_rows=sizes.rows, keys=FEW_KEYS)
    for _ in range(TIMES):
        latency(stand, "warm-up", {}, rows_per_second=ROWS_PER_SECOND, seconds=sizes.latency_seconds)
