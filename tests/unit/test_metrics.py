"""Metrics have the agreed names, bounded series, and count by the batch."""

from __future__ import annotations

import re

import pytest
from prometheus_client import generate_latest

from outboxd.observability.events import CATALOGUE
from outboxd.observability.logs import Log
from outboxd.observability.metrics import OTHER, Metrics, TopicLabels
from outboxd.observability.observer import DaemonObserver
from outboxd.observability.status import StatusBoard
from outboxd.policy.exchange.reads import Pause
from outboxd.policy.faults import own_fault
from outboxd.relay.ports import Observer
from outboxd.relay.status import SHOWN_MAX, status_of
from tests.unit.test_relay_status import make_relay

AGREED = {
    "records_published_total", "published_bytes_total", "publish_errors_total", "retries_total", "dead_letters_total",
    "duplicates_possible_total", "lease_lost_total", "pending_records", "oldest_pending_age_seconds",
    "in_flight_records", "in_flight_bytes", "dead_letter_records", "held_keys", "breaker_open", "leader", "paused",
    "database_up", "kafka_up", "config_last_reload_successful", "build_info", "commit_to_ack_seconds",
    "phase_seconds", "batch_records",
}  # fmt: skip


class Daemon:
    """An observer with all that it tells."""

    def __init__(self) -> None:
        self.board = StatusBoard()
        self.metrics = Metrics(self.board)
        self.lines: list[str] = []
        self.alerts: list[tuple[str, dict[str, object]]] = []
        self.log = Log(self.lines.append, "json")
        self.observer = DaemonObserver(
            self.log, self.metrics, self.board, lambda name, fields: self.alerts.append((name, dict(fields)))
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"outboxd_{name}", labels)


def test_every_agreed_metric_is_there_under_its_name() -> None:
    shown = generate_latest(Daemon().metrics.registry).decode()
    for name in AGREED:
        assert f"# HELP outboxd_{name} " in shown, name


def test_nothing_but_our_own_and_the_process_is_shown_and_each_name_once() -> None:
    shown = generate_latest(Daemon().metrics.registry).decode()
    names = [line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")]
    assert all(name.startswith(("outboxd_", "process_")) for name in names)
    assert len(names) == len(set(names))
    assert "_created" not in shown


def test_the_observer_is_what_the_relay_asks_for() -> None:
    daemon = Daemon()
    observer: Observer = daemon.observer
    observer.delivered("orders", 3, 300)
    observer.delivered("orders", 2, 200)
    observer.acknowledged_after(0.2, 5)
    observer.failed("orders", "MSG_SIZE_TOO_LARGE", "row_permanent")
    observer.retried("orders")
    observer.died("orders", "fatal")
    observer.chained(40)
    observer.duplicates_possible(7)
    observer.phase("fetch", 0.004, 1000)
    observer.phase("settle", 0.004, 1000)
    assert daemon.value("records_published_total", topic="orders") == 5
    assert daemon.value("published_bytes_total", topic="orders") == 500
    labels = {"topic": "orders", "error_code": "MSG_SIZE_TOO_LARGE", "class": "row_permanent"}
    assert daemon.value("publish_errors_total", **labels) == 1
    assert daemon.value("retries_total", topic="orders") == 1
    assert daemon.value("dead_letters_total", topic="orders", reason="fatal") == 1
    assert daemon.value("chained_records_total") == 40
    assert daemon.value("duplicates_possible_total") == 7
    assert daemon.value("commit_to_ack_seconds_count") == 5
    assert daemon.value("commit_to_ack_seconds_sum") == 1.0
    assert daemon.value("commit_to_ack_seconds_bucket", le="0.1") == 0
    assert daemon.value("commit_to_ack_seconds_bucket", le="0.25") == 5
    assert daemon.value("phase_seconds_count", phase="settle") == 1
    assert daemon.value("batch_records_sum") == 1000


def test_an_event_is_logged_counted_and_offered_as_an_alert_where_the_catalogue_says_so() -> None:
    daemon = Daemon()
    daemon.observer.event("breaker_opened", topic="orders", error_code="X", cause="no grant")
    daemon.observer.event("topic_paused", topic="orders")
    daemon.observer.event("lease_lost", reason="another", unsettled_rows=0)
    daemon.observer.event("late_rows_found", rows=4)
    daemon.observer.event("settle_mismatch", expected=2, matched=1)
    daemon.log.close()
    assert len(daemon.lines) == 5
    assert [name for name, _ in daemon.alerts] == ["breaker_opened", "lease_lost"]
    assert daemon.value("events_total", event="breaker_opened") == 1
    assert daemon.value("lease_lost_total") == 1
    assert daemon.value("late_rows_total") == 4
    assert daemon.value("settle_mismatches_total") == 1


def test_a_start_is_no_alert_but_the_end_of_a_trouble_is_of_which_this_daemon_told() -> None:
    daemon = Daemon()
    for name in ("owner", "recovered", "lease_lost", "owner", "recovery_failed", "recovery_failed", "recovered"):
        daemon.observer.event(name)
    daemon.observer.event("owner")
    daemon.observer.event("recovered")
    told = [name for name, _ in daemon.alerts]
    assert told == ["lease_lost", "owner", "recovery_failed", "recovery_failed", "recovered"]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_event_of_the_catalogue_is_counted_whoever_tells_it_and_logged_or_not(name: str) -> None:
    daemon = Daemon()
    daemon.log.set_level("error")
    daemon.observer.event(name)
    daemon.log.event(name)
    assert daemon.value("events_total", event=name) == 2


def test_alerts_go_out_for_dead_letters_breakers_storms_and_stalls() -> None:
    assert {kind.name for kind in CATALOGUE.values() if kind.alerts} >= {
        "dead_letter_kind_appeared", "breaker_opened", "breaker_closed", "storm_guard", "in_flight_stalled",
        "database_failed", "lease_lost", "thread_died",
    }  # fmt: skip


def test_the_servers_are_up_once_they_answered_and_down_once_they_did_not() -> None:
    daemon = Daemon()
    assert (daemon.value("database_up"), daemon.value("kafka_up")) == (0, 0)
    daemon.observer.database_answered(["load"])
    daemon.observer.delivered("orders", 1, 1)
    assert (daemon.value("database_up"), daemon.value("kafka_up")) == (1, 1)
    daemon.observer.event("database_failed", during="fetch", cause="gone")
    assert daemon.value("database_up") == 0
    assert daemon.board.database.cause == "gone"


def test_topics_beyond_the_bound_share_one_label() -> None:
    labels = TopicLabels(2)
    assert [labels[topic] for topic in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_a_topic_that_no_label_should_hold_is_other() -> None:
    labels = TopicLabels()
    assert labels["x" * 250] == OTHER
    assert labels["a\nb"] == OTHER


def test_ten_thousand_topics_make_a_bounded_page() -> None:
    daemon = Daemon()
    for number in range(10_000):
        daemon.observer.delivered(f"topic-{number}", 1, 1)
    shown = generate_latest(daemon.metrics.registry).decode()
    assert shown.count("outboxd_records_published_total{") == 201
    assert daemon.value("records_published_total", topic=OTHER) == 9_800


def test_every_pause_and_every_topic_on_hold_is_counted_though_a_part_of_them_is_shown() -> None:
    relay = make_relay()
    relay.state.lanes.pauses = [Pause(f"paused-{number}", 5, "anna", None) for number in range(150)]
    for number in range(130):
        relay.state.lanes.breakers.trip(f"topic-{number}", own_fault("IN_FLIGHT_TOO_OLD"), "stuck", 90.0)
    daemon = Daemon()
    daemon.board.publish(status_of(relay, 100.0))
    assert daemon.value("paused") == 150
    assert daemon.value("breaker_open", topic="topic-0") == 1
    assert daemon.value("breaker_open", topic=OTHER) == 130 - SHOWN_MAX


def test_dead_letters_by_topic_forget_topics_that_have_none_any_more() -> None:
    daemon = Daemon()
    daemon.metrics.set_dead_letters({"a": 2, "b": 1})
    daemon.metrics.set_dead_letters({"b": 3})
    assert daemon.value("dead_letter_records", topic="a") is None
    assert daemon.value("dead_letter_records", topic="b") == 3


def test_no_label_is_one_that_prometheus_adds_itself() -> None:
    shown = generate_latest(Daemon().metrics.registry).decode()
    daemon = Daemon()
    daemon.metrics.job_failures.labels("gauges").inc()
    shown += generate_latest(daemon.metrics.registry).decode()
    assert not re.search(r"[{,](job|instance)=", shown)
