"""A histogram that takes a whole batch at once: `rows` observations of one value cost what one costs."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class WeightedHistogram(Collector):
    """One histogram, with at most one label. Values are in the unit that its name ends in."""

    def __init__(self, name: str, sentence: str, bounds: Sequence[float], label: str | None = None) -> None:
        """`bounds` are the upper ends of the buckets, ascending, without infinity."""
        self._name = name
        self._sentence = sentence
        self._bounds = list(bounds)
        self._labels = [] if label is None else [label]
        self._lock = threading.Lock()
        self._series: dict[str, tuple[list[int], list[float]]] = {}

    def observe(self, value: float, rows: int = 1, label: str = "") -> None:
        """Count `rows` observations of `value`."""
        place = bisect.bisect_left(self._bounds, value)
        with self._lock:
            series = self._series.get(label)
            if series is None:
                series = self._series[label] = ([0] * (len(self._bounds) + 1), [0.0])
            series[0][place] += rows
            series[1][0] += value * rows

    def collect(self) -> Iterable[Metric]:
        """Return the buckets, each with all below it, as Prometheus has them."""
        family = HistogramMetricFamily(self._name, self._sentence, labels=self._labels)
        with self._lock:
            series = {label: (list(counts), total[0]) for label, (counts, total) in self._series.items()}
        if not self._labels:
            series = series or {"": ([0] * (len(self._bounds) + 1), 0.0)}
        for label, (counts, total) in series.items():
            reached = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip([*self._bounds, float("inf")], counts, strict=True):
                reached += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), reached))
            family.add_metric([label] if self._labels else [], buckets, total)
        return [family]
