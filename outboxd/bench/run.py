"""All measurements in their order, and what follows from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from outboxd.bench.bare import quiet_clients
from outboxd.bench.measuring import Bounds, measure_drain, measure_latency
from outboxd.bench.scratch import Scratch
from outboxd.bench.verdict import Drain, Latency, Tuning, Verdict, judge, judge_latency
from outboxd.config import Settings
from outboxd.daemon.signals import ending_as_an_interrupt, ignore_signals

LATENCY: Final = "latency"
DRAINS: Final = {
    "drain, mark": {"after_publish": "mark"},
    "drain, delete": {"after_publish": "delete"},
}
EXACTLY_ONCE: Final = "drain, exactly-once, delete"
LONGEST_PARTS: Final = 3
"""One measurement runs the bare loop, writes its backlog and drains it, each within the bound of time."""

Watch = Callable[[str, float], None]
"""Told the measurement's name, and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    drains: tuple[Drain, ...]
    verdicts: tuple[Verdict, ...]
    latency: Latency
    latency_verdict: str


def names(*, exactly_once: bool) -> list[str]:
    """The measurements in their order."""
    return [*DRAINS, *([EXACTLY_ONCE] if exactly_once else []), LATENCY]


def run(
    settings: Settings, bounds: Bounds, *, exactly_once: bool, watch: Watch, remark: Callable[[str], None]
) -> Report:
    """Measure on the servers of `settings`, on a schema and topics that are removed at the end.

    Args:
        settings: the user's own.
        bounds: how many rows, for how long.
        exactly_once: measure that drain too.
        watch: told how far it is.
        remark: told what could not be removed.

    Raises:
        OutboxdError: a server failed or refused, or a row was lost, repeated or out of order.
    """
    quiet_clients()
    given = settings.relay
    tuning = Tuning(given.batch_rows, given.poll_interval_max_seconds, given.listen)
    drains: list[Drain] = []
    with ending_as_an_interrupt(), Scratch(settings, remark) as scratch, _signals_wait_after():
        for name in names(exactly_once=exactly_once):
            if name == LATENCY:
                continue
            if name == EXACTLY_ONCE:
                scratch.expect_progress_topic()
                own = scratch.settings(after_publish="delete", delivery="exactly-once")
            else:
                own = scratch.settings(**DRAINS[name])
            drains.append(measure_drain(scratch, own, name, bounds, lambda part, name=name: watch(name, part)))  # type: ignore[misc]
            watch(name, 1.0)
        own = scratch.settings(after_publish=given.after_publish)
        latency = measure_latency(scratch, own, bounds, lambda part: watch(LATENCY, part))
        watch(LATENCY, 1.0)
    verdicts = tuple(judge(drain, tuning) for drain in drains)
    return Report(tuple(drains), verdicts, latency, judge_latency(latency, tuning))


@contextmanager
def _signals_wait_after() -> Iterator[None]:
    """When it ends, however it does, signals are no longer heard: removing is bounded in time, and is not cut off."""
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            ignore_signals()
