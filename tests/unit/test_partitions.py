"""Whether a topic lacks the partition that a row names is asked once a topic, on a thread that a rebuild outruns."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

from outboxd.kafka.cluster.partitions import MostPartitions, PartitionQuestions
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from tests.support.children import wait_for
from tests.unit.records import record

WAIT_SECONDS = 10.0
UNKNOWN = DeliveryFault(fault_of(-190), "unknown partition")


class Cluster:
    """Answers for topics of two partitions once it is let; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()

    def list_topics(self, topic: str, timeout: float) -> Any:
        del timeout
        self.asked.append(topic)
        assert self.may_answer.wait(WAIT_SECONDS)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None, 1: None})})


def test_a_topic_is_asked_for_once_for_all_of_its_records_and_each_gets_its_own_answer() -> None:
    cluster, reports = Cluster(), cast("SimpleQueue[Report]", SimpleQueue())
    questions = PartitionQuestions(reports.put, MostPartitions())
    began_at = time.monotonic()
    questions.ask(cast(Any, cluster), record(1, topic="first", partition=5), UNKNOWN)
    wait_for(lambda: cluster.asked == ["first"], timeout_seconds=WAIT_SECONDS, what="the first question")
    for record_id in range(2, 10):
        questions.ask(cast(Any, cluster), record(record_id, topic="t", partition=record_id % 4), UNKNOWN)
    let_at = time.monotonic()
    cluster.may_answer.set()

    told = [reports.get(timeout=WAIT_SECONDS) for _ in range(9)]
    codes = {report.record.id: report.error.fault.name for report in told if report.error is not None}
    assert cluster.asked == ["first", "t"]
    assert {record_id for record_id, code in codes.items() if code == "UNKNOWN_PARTITION"} == {1, 2, 3, 6, 7}
    assert all(codes[record_id] == UNKNOWN.fault.name for record_id in (4, 5, 8, 9))
    assert all(report.alone for report in told)
    # Before it was told: what was delivered meanwhile was delivered after that.
    failed_at = [report.error.failed_at for report in told if report.error is not None]
    assert all(began_at <= at <= let_at for at in failed_at if at is not None)
    assert None not in failed_at


def test_what_was_asked_for_a_producer_that_is_gone_is_not_reported() -> None:
    cluster, reports = Cluster(), cast("SimpleQueue[Report]", SimpleQueue())
    questions = PartitionQuestions(reports.put, MostPartitions())
    questions.ask(cast(Any, cluster), record(1, topic="first", partition=5), UNKNOWN)
    wait_for(lambda: cluster.asked == ["first"], timeout_seconds=WAIT_SECONDS, what="the first question")
    questions.ask(cast(Any, cluster), record(2, topic="t", partition=5), UNKNOWN)
    questions.forget()
    questions.ask(cast(Any, cluster), record(3, topic="u", partition=5), UNKNOWN)
    cluster.may_answer.set()

    assert reports.get(timeout=WAIT_SECONDS).record.id == 3
    assert reports.empty()
    assert cluster.asked == ["first", "u"]


def test_a_record_is_open_until_its_report_is_there_or_its_producer_is_gone() -> None:
    cluster, reports = Cluster(), cast("SimpleQueue[Report]", SimpleQueue())
    questions = PartitionQuestions(reports.put, MostPartitions())
    assert questions.asks(cast(Any, cluster), record(1, topic="t", partition=5), UNKNOWN)
    assert not questions.asks(cast(Any, cluster), record(2, topic="t"), UNKNOWN)
    assert questions.open_ids() == {1}
    cluster.may_answer.set()
    assert reports.get(timeout=WAIT_SECONDS).record.id == 1
    assert questions.open_ids() == set()

    cluster.may_answer.clear()
    questions.asks(cast(Any, cluster), record(3, topic="t", partition=5), UNKNOWN)
    questions.forget()
    assert questions.open_ids() == set()
    cluster.may_answer.set()


def test_a_partition_that_the_topic_had_is_missed_by_the_topic_and_one_that_it_never_had_by_the_record() -> None:
    cluster, reports, most = Cluster(), cast("SimpleQueue[Report]", SimpleQueue()), MostPartitions()
    questions = PartitionQuestions(reports.put, most)
    for count in (3, 4, 1):
        most.note("t", count)
    most.note("other", 9)
    cluster.may_answer.set()
    for partition in (1, 2, 3, 4):
        questions.ask(cast(Any, cluster), record(partition, topic="t", partition=partition), UNKNOWN)
    errors = {}
    for report in (reports.get(timeout=WAIT_SECONDS) for _ in range(4)):
        assert report.error is not None
        errors[report.record.id] = report.error
    assert {each: error.fault.name for each, error in errors.items()} == {
        1: "_UNKNOWN_PARTITION", 2: "_UNKNOWN_PARTITION", 3: "_UNKNOWN_PARTITION", 4: "UNKNOWN_PARTITION"
    }  # fmt: skip
    assert errors[1].text == UNKNOWN.text
    assert errors[3].text.endswith("the row names 3, and it had 4: it was made anew with fewer")


def test_a_partition_that_an_answer_showed_before_is_missed_by_the_topic_too() -> None:
    cluster, reports, most = Cluster(), cast("SimpleQueue[Report]", SimpleQueue()), MostPartitions()
    most.note("t", 1)
    questions = PartitionQuestions(reports.put, most)
    cluster.may_answer.set()
    # The topic was given a second one, which the client did not know yet.
    questions.ask(cast(Any, cluster), record(1, topic="t", partition=1), UNKNOWN)
    assert reports.get(timeout=WAIT_SECONDS).error is not None

    later = most.fault_of(record(2, topic="t", partition=1), 1)

    assert later is not None
    assert later.fault.name == "_UNKNOWN_PARTITION"
