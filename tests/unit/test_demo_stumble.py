"""The port that lets one record fail once: once, only that one, and in the order of the others."""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.demo.stumble import StumblingPublisher
from outboxd.kafka.plain.no_transactions import NoTransactions
from outboxd.kafka.transactional.no_chains import NoChains
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import FaultClass
from outboxd.policy.rows.records import Arm, Record


class Within(NoTransactions, NoChains):
    """Takes at most `room` records of each call, and reports each as delivered."""

    def __init__(self) -> None:
        self.room = 100
        self.sent: list[int] = []
        self.reports: list[Report] = []

    def publish(self, records: Sequence[Record], start: int) -> int:
        taken = records[start : start + self.room]
        for each in taken:
            self.sent.append(each.id)
            self.reports.append(Report(each, None, 0, len(self.sent), False))
        return start + len(taken)

    def take_reports(self) -> list[Report]:
        taken, self.reports = self.reports, []
        return taken

    def connection_trouble(self) -> None:
        return None

    def placement(self, topic: str) -> None:
        return None

    def is_missing(self, topic: str) -> bool:
        return False

    def misplaced(self, topic: str) -> None:
        return None

    def publish_alone(self, record: Record) -> bool:
        return self.publish([record], 0) == 1

    def poll(self, timeout_seconds: float) -> None: ...

    def flush(self, timeout_seconds: float) -> None: ...

    def questioned(self) -> set[int]:
        return set()

    def failure(self) -> DeliveryFault | None:
        return None

    def rebuild(self) -> None: ...

    def purge(self) -> None: ...


def record(row_id: int, key: str, headers: str = "{}", topic: str = "orders") -> Record:
    return Record(Arm.FORWARD, row_id, "event", topic, key, b"", headers, None, 0, 10)


STUMBLES = record(2, "b", '{"demo-stumble": "fails once"}')
BATCH = [record(1, "a"), STUMBLES, record(3, "c")]


def test_the_marked_record_fails_once_and_then_passes() -> None:
    within = Within()
    publisher = StumblingPublisher(within)
    assert publisher.publish(BATCH, 0) == 3
    assert within.sent == [1, 3]
    reports = publisher.take_reports()
    assert [(report.record.id, report.error is None) for report in reports] == [(1, True), (3, True), (2, False)]
    assert reports[-1].error is not None
    assert reports[-1].error.fault.fault_class is FaultClass.ROW_PASSING
    assert publisher.publish([STUMBLES], 0) == 1
    assert within.sent == [1, 3, 2]
    assert publisher.attempts == 2
    assert [report.error for report in publisher.take_reports()] == [None]


def test_the_failure_is_reported_once_a_neighbour_of_its_topic_is_delivered() -> None:
    within = Within()
    publisher = StumblingPublisher(within)
    publisher.publish([STUMBLES, record(3, "x", topic="payments")], 0)
    assert [report.record.id for report in publisher.take_reports()] == [3]
    publisher.publish([record(4, "d")], 0)
    assert [report.record.id for report in publisher.take_reports()] == [4, 2]
    assert publisher.take_reports() == []


def test_a_full_queue_before_the_marked_record_leaves_it_for_the_next_time() -> None:
    within = Within()
    publisher = StumblingPublisher(within)
    within.room = 0
    assert publisher.publish(BATCH, 0) == 0
    assert (publisher.attempts, publisher.stumbled_id) == (0, None)
    within.room = 100
    assert publisher.publish(BATCH, 1) == 3
    assert (publisher.attempts, within.sent) == (1, [3])


def test_records_without_the_mark_go_straight_through() -> None:
    within = Within()
    publisher = StumblingPublisher(within)
    assert publisher.publish([record(1, "a"), record(3, "c")], 1) == 2
    assert within.sent == [3]
