"""The metrics: names and labels are a contract (`outboxd_…`); never a key, an id or a payload in a label.

Counters are counted by the batch. What was acknowledged and the gauges of the relay are made from the status board when
somebody asks; those of the database are set by the job that measures them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outboxd import __version__
from outboxd.observability.histogram import WeightedHistogram
from outboxd.observability.status import StatusBoard

TOPICS_MAX: Final = 200
OTHER: Final = "_other"
_TOPIC_CHARS_MAX: Final = 249
_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
_ROWS: Final = (1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 50_000.0)


class TopicLabels:
    """Topics as labels: the first so many keep their names, all others are `_other`."""

    def __init__(self, topics_max: int = TOPICS_MAX) -> None:
        """`topics_max` bounds the series, whatever stands in the column `topic`."""
        self._topics_max = topics_max
        self._known: dict[str, str] = {}

    def __getitem__(self, topic: str) -> str:
        label = self._known.get(topic)
        if label is not None:
            return label
        if len(self._known) >= self._topics_max or len(topic) > _TOPIC_CHARS_MAX or not topic.isprintable():
            return OTHER
        self._known[topic] = topic
        return topic


class Metrics:
    """All of the daemon's metrics, in a registry of their own."""

    def __init__(self, board: StatusBoard, *, dropped_lines: Callable[[], int] = lambda: 0) -> None:
        """`board` has the relay's status; `dropped_lines` says how many log lines were dropped."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not annotate it
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self.topics = TopicLabels()
        ProcessCollector(registry=registry)

        def counter(name: str, sentence: str, *labels: str) -> Counter:
            return Counter(name, sentence, labels, namespace="outboxd", registry=registry)

        def gauge(name: str, sentence: str, *labels: str) -> Gauge:
            return Gauge(name, sentence, labels, namespace="outboxd", registry=registry)

        self.errors = counter(
            "publish_errors_total", "Failed deliveries, repetitions included.", "topic", "error_code", "class"
        )
        self.retries = counter("retries_total", "Records put back to be tried again later.", "topic")
        self.dead_letters = counter("dead_letters_total", "Records that became dead letters.", "topic", "reason")
        self.chained = counter(
            "chained_records_total", "Records that were sent together with others of their keys, repetitions included."
        )
        self.duplicates_possible = counter(
            "duplicates_possible_total",
            "Records of unknown outcome that a living daemon gave up: they go again, and may be in the log already.",
        )
        self.lease_lost = counter("lease_lost_total", "How often this daemon lost the lease while it held it.")
        self.events = counter("events_total", "Events of the log's catalogue, whether logged or not.", "event")
        self.late_rows = counter("late_rows_total", "Rows that only the sweep found.")
        self.settle_mismatches = counter(
            "settle_mismatches_total", "Settlements that changed fewer rows than expected."
        )
        self.purged = counter("purged_rows_total", "Rows removed by housekeeping.", "table")
        # Not "job": Prometheus has a label of that name for what it scrapes.
        self.job_failures = counter("job_failures_total", "Housekeeping jobs that failed.", "task")
        self.job_seconds = gauge("job_duration_seconds", "How long the last run of the job took.", "task")
        self.pending = gauge(
            "pending_records", "Rows not yet published or dead: counted up to 10,000, estimated beyond."
        )
        self.oldest_pending = gauge("oldest_pending_age_seconds", "Age of the oldest pending row that is due; 0: none.")
        self.config_reload = gauge("config_last_reload_successful", "1 if the last reload took the new configuration.")
        self.config_reload.set(1)
        build = gauge("build_info", "1; the labels say what runs.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        self.commit_to_ack = WeightedHistogram(
            "outboxd_commit_to_ack_seconds", "From a row's creation to its acknowledgement.", _SECONDS
        )
        self.phases = WeightedHistogram(
            "outboxd_phase_seconds", "How long each phase of the flow took for one batch.", _SECONDS, "phase"
        )
        self.batches = WeightedHistogram("outboxd_batch_records", "Records in one fetch.", _ROWS)
        self._dead: Mapping[str, int] = {}
        collectors: tuple[Collector, ...] = (
            self.commit_to_ack,
            self.phases,
            self.batches,
            _Made(lambda: _published(board)),
            _Made(lambda: _relay_gauges(board, self.topics)),
            _Made(
                lambda: [
                    _by_topic("dead_letter_records", "Dead letters to be looked at, counted up to a bound.", self._dead)
                ]
            ),
            _Made(lambda: [_plain("log_lines_dropped", "Log lines dropped since the start.", dropped_lines())]),
        )
        for collector in collectors:
            registry.register(collector)

    def set_dead_letters(self, by_topic: Mapping[str, int], others: int = 0) -> None:
        """Take how many dead letters each topic has, and topics that are not told apart; further ones have none."""
        self._dead = _by_label(self.topics, by_topic.items(), others)


class _Made(Collector):
    """Metrics that are made when somebody asks."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        return self._make()


def _published(board: StatusBoard) -> list[Metric]:
    """What was acknowledged, which the board counts: a counter's lock is dear for what comes hundreds of times a second
    with a row or two.
    """
    # Copies, since the relay's thread may add a topic meanwhile.
    return [
        _by_topic(
            "records_published",
            "Records that the broker acknowledged.",
            board.published_by_topic.copy(),
            CounterMetricFamily,
        ),
        _by_topic(
            "published_bytes",
            "Their payload, key and headers before compression.",
            board.published_bytes_by_topic.copy(),
            CounterMetricFamily,
        ),
    ]


def _plain(name: str, sentence: str, value: float) -> Metric:
    return GaugeMetricFamily(f"outboxd_{name}", sentence, value=value)


def _by_topic(
    name: str,
    sentence: str,
    values: Mapping[str, float],
    kind: type[CounterMetricFamily | GaugeMetricFamily] = GaugeMetricFamily,
) -> Metric:
    family = kind(f"outboxd_{name}", sentence, labels=["topic"])
    for topic, value in values.items():
        family.add_metric([topic], value)
    return family


def _by_label(topics: TopicLabels, counts: Iterable[tuple[str, int]], others: int) -> dict[str, int]:
    """Sum what is counted by topic, with what is of topics that are not named."""
    counted: dict[str, int] = {}
    for topic, count in counts:
        label = topics[topic]
        counted[label] = counted.get(label, 0) + count
    if others > 0:
        counted[OTHER] = counted.get(OTHER, 0) + others
    return counted


def _relay_gauges(board: StatusBoard, topics: TopicLabels) -> list[Metric]:
    status = board.relay
    breakers: Mapping[str, int] = {}
    if status is not None:
        shown = [(breaker.topic, 1) for breaker in status.breakers]
        breakers = _by_label(topics, shown, status.breakers_open - len(shown))
    is_owner = status is not None and status.token is not None
    return [
        _plain("in_flight_records", "Records published and not yet settled.", status.unsettled_rows if status else 0),
        _plain(
            "in_flight_bytes",
            "Their payload, key and headers, by the mean size of what is in memory.",
            status.unsettled_bytes if status else 0,
        ),
        _plain(
            "in_memory_records", "Records in memory, from fetch to settlement.", status.in_memory_rows if status else 0
        ),
        _plain("in_memory_bytes", "Their payload, key and headers.", status.in_memory_bytes if status else 0),
        _plain("held_keys", "Keys whose later rows wait for a failed one.", status.held_keys if status else 0),
        _by_topic(
            "breaker_open", "1 while the topic is on hold for a fault that is not its rows'; _other counts.", breakers
        ),
        _plain("leader", "1 while this daemon relays the outbox.", is_owner),
        _plain("paused", "Pauses in force, those of the storm guard too.", status.pauses_in_force if status else 0),
        _plain(
            "storm_holds",
            "Topics that the storm guard holds until they are resumed.",
            status.storm_holds if status else 0,
        ),
        _plain("database_up", "1 while the database answers.", board.database.is_up),
        _plain("kafka_up", "1 while a broker answers.", board.kafka.is_up),
    ]
