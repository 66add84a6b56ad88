"""All benchmarks by name, each with the sizes of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from benchmarks.backlog import backlog
from benchmarks.bloat import bloat
from benchmarks.database import NONE_APART, Apart
from benchmarks.drain import drain
from benchmarks.held_key import held_key
from benchmarks.idle import idle
from benchmarks.latency import latency
from benchmarks.memory import memory
from benchmarks.naive import naive
from benchmarks.stand import Section, Stand


class Result(Protocol):
    """What a benchmark gives: figures by name for the results' file, and a line for people as its text."""

    def as_dict(self) -> dict[str, object]: ...


Run = Callable[[Stand, str], Result]


@dataclass(frozen=True)
class Sizes:
    """How much each benchmark takes; in `turns`, how often each rate is measured where rates are compared."""

    rows: int = 200_000
    latency_seconds: float = 20.0
    idle_seconds: float = 20.0
    memory_small_rows: int = 200_000
    memory_large_bytes: int = 512 * 2**20
    backlog_rows: int = 5_000_000
    backlog_slice_rows: int = 100_000
    dead_rows: int = 2_000_000
    hold_seconds: float = 600.0
    held_rows: int = 500_000
    turns: int = 3


QUICK = Sizes(
    rows=20_000,
    latency_seconds=3.0,
    idle_seconds=3.0,
    memory_small_rows=20_000,
    memory_large_bytes=32 * 2**20,
    backlog_rows=300_000,
    backlog_slice_rows=20_000,
    dead_rows=50_000,
    hold_seconds=5.0,
    held_rows=20_000,
    turns=1,
)
"""Small enough to try the suite itself in three minutes; its figures say little."""

DELETE: Section = {"after_publish": "delete"}
EXACTLY_ONCE: Section = {**DELETE, "delivery": "exactly-once"}

DRAINS: Mapping[str, Section] = {
    "drain-delete": DELETE,
    "drain-mark": {"after_publish": "mark"},
    "drain-exactly-once": EXACTLY_ONCE,
}
DRAINS_OF_KEYS: Mapping[str, tuple[Section, int]] = {
    "drain-delete-20000-keys": (DELETE, 20_000),
    "drain-100-keys": (DELETE, 100),
    "drain-10-keys": (DELETE, 10),
    "drain-1-key": (DELETE, 1),
    "exactly-once-100-keys": (EXACTLY_ONCE, 100),
    "exactly-once-1-key": (EXACTLY_ONCE, 1),
}
HOT = "drain-hot-key"
"""A drain over many keys, and each tenth row of one key."""
LATENCIES: Mapping[str, tuple[Section, float]] = {
    "latency-1000": ({}, 1000.0),
    "latency-10": ({}, 10.0),
    "latency-10-listen": ({"listen": True}, 10.0),
    "latency-1000-exactly-once": ({"delivery": "exactly-once"}, 1000.0),
}
IDLES: Mapping[str, Section] = {"idle": {}, "idle-listen": {"listen": True}}
MEMORIES: Mapping[str, tuple[Section, int, Apart]] = {
    "memory": ({}, 20_000, NONE_APART),
    "memory-exactly-once": ({"delivery": "exactly-once"}, 20_000, NONE_APART),
    "memory-300-keys": ({}, 300, NONE_APART),
    "memory-49-keys": ({}, 49, Apart(of_ten=9)),
}
"""Each with how many keys, and rows without a key among them. Of few keys many rows go together."""


def benchmarks(sizes: Sizes) -> dict[str, Run]:
    """Every benchmark, in the order in which they run."""
    found: dict[str, Run] = {}
    for name, relay in DRAINS.items():
        found[name] = partial(drain, relay=relay, rows=sizes.rows, bare_rows=sizes.rows)
    for settles in ("delete", "mark"):
        found[f"naive-{settles}"] = partial(naive, settles=settles, rows=sizes.rows)
    for name, (relay, keys) in DRAINS_OF_KEYS.items():
        found[name] = partial(drain, relay=relay, rows=sizes.rows, bare_rows=sizes.rows, keys=keys)
    found[HOT] = partial(drain, relay=DELETE, rows=sizes.rows, bare_rows=sizes.rows, apart=Apart(1, "hot"))
    for name, (relay, rate) in LATENCIES.items():
        found[name] = partial(latency, relay=relay, rows_per_second=rate, seconds=sizes.latency_seconds)
    for name, relay in IDLES.items():
        found[name] = partial(idle, relay=relay, seconds=sizes.idle_seconds)
    for name, (relay, keys, apart) in MEMORIES.items():
        found[name] = partial(
            memory,
            relay=relay,
            keys=keys,
            small_rows=sizes.memory_small_rows,
            large_bytes=sizes.memory_large_bytes,
            apart=apart,
        )
    found["held-key"] = partial(held_key, held_rows=sizes.held_rows, rows=sizes.rows, turns=sizes.turns)
    found["backlog"] = partial(backlog, rows=sizes.backlog_rows, slice_rows=sizes.backlog_slice_rows, turns=sizes.turns)
    found["bloat"] = partial(
        bloat,
        dead_rows=sizes.dead_rows,
        hold_seconds=sizes.hold_seconds,
        rows=sizes.rows,
        latency_seconds=sizes.latency_seconds,
        turns=sizes.turns,
    )
    return found


def changed(sizes: Sizes, **wanted: float | None) -> Sizes:
    """These sizes with what was asked for by name; None leaves one as it is."""
    return replace(sizes, **{name: value for name, value in wanted.items() if value is not None})  # type: ignore[arg-type]  # the names are ours
