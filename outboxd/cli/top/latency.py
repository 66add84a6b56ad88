"""Quantiles of the daemon's histogram `commit_to_ack_seconds`, and the dead letters by topic, from `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from outboxd.cli.top.look import Latency

_HISTOGRAM = "outboxd_commit_to_ack_seconds"
_DEAD = "outboxd_dead_letter_records"


@dataclass(frozen=True, slots=True)
class Measured:
    """What is taken of `/metrics`: rows up to each bound (seconds), as Prometheus counts them, and dead letters."""

    rows_up_to: Mapping[float, float] = field(default_factory=dict)
    dead_by_topic: Mapping[str, int] = field(default_factory=dict)


def measured(metrics: bytes | None) -> Measured:
    """Read the text of `/metrics`; nothing is measured where there is none, or none that can be read."""
    from prometheus_client.parser import text_string_to_metric_families

    rows_up_to: dict[float, float] = {}
    dead: dict[str, int] = {}
    try:
        for family in text_string_to_metric_families((metrics or b"").decode()):
            for sample in family.samples:
                if sample.name == f"{_HISTOGRAM}_bucket":
                    rows_up_to[float(sample.labels["le"])] = sample.value
                elif sample.name == _DEAD and sample.value:
                    dead[sample.labels["topic"]] = int(sample.value)
    except (ValueError, KeyError):
        return Measured()
    return Measured(rows_up_to, dead)


def latency_between(former: Measured, now: Measured, over: str) -> Latency | None:
    """The latency of the rows acknowledged between two measurements; None where there were none."""
    rows_up_to = {bound: rows - former.rows_up_to.get(bound, 0.0) for bound, rows in sorted(now.rows_up_to.items())}
    total = max(rows_up_to.values(), default=0.0)
    if total <= 0 or min(rows_up_to.values()) < 0:
        return None
    return Latency(_quantile(rows_up_to, total, 0.5), _quantile(rows_up_to, total, 0.99), over)


def _quantile(rows_up_to: Mapping[float, float], total: float, part: float) -> float:
    """Between a bucket's bounds evenly, as Prometheus does; beyond the last finite bound, that bound."""
    wanted, below_seconds, below_rows = part * total, 0.0, 0.0
    for bound, rows in rows_up_to.items():
        if rows >= wanted:
            if bound == float("inf"):
                return below_seconds
            return below_seconds + (bound - below_seconds) * (wanted - below_rows) / ((rows - below_rows) or 1.0)
        below_seconds, below_rows = bound, rows
    return below_seconds
