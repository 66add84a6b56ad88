"""What a batch of the transactional producer reports in the end."""

from __future__ import annotations

from collections import deque

from confluent_kafka import KafkaError

from outboxd.kafka.transactional.verdicts import Pieces, sent_back
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import FaultClass, fault_of
from outboxd.policy.rows.records import Record
from tests.unit.records import record


def _failed(failed: Record, code: int, name: str, fault_class: FaultClass) -> Report:
    fault = fault_of(code, name, "", alone=True)
    assert fault.fault_class is fault_class, "this code is not what the test needs"
    return Report(failed, DeliveryFault(fault, ""), None, None, True)


def _passing(failed: Record) -> Report:
    return _failed(failed, KafkaError.REQUEST_TIMED_OUT, "REQUEST_TIMED_OUT", FaultClass.ROW_PASSING)


def _names(reports: list[Report]) -> dict[int, str]:
    return {report.record.id: report.error.fault.name if report.error else "delivered" for report in reports}


def test_a_row_that_would_be_retried_is_sent_back_when_an_earlier_one_of_its_key_was_not_delivered() -> None:
    reports = [_passing(record(52)), _passing(record(53, key="other")), sent_back(record(43))]

    concluded = Pieces(deque(), reports).conclude()

    assert _names(concluded) == {52: "SENT_BACK", 53: "REQUEST_TIMED_OUT", 43: "SENT_BACK"}


def test_a_row_is_retried_when_all_before_it_of_its_key_were_delivered_or_have_no_key_in_common() -> None:
    reports = [
        Report(record(43), None, 0, 7, True),
        sent_back(record(44, topic="elsewhere")),
        sent_back(record(45, key=None)),
        _passing(record(52)),
        sent_back(record(60)),
        _passing(record(61, key=None)),
    ]

    names = _names(Pieces(deque(), reports).conclude())

    assert names[52] == names[61] == "REQUEST_TIMED_OUT"
    assert names[43] == "delivered"


def test_a_row_that_can_never_go_dies_behind_no_earlier_one_of_its_key_that_was_not_delivered() -> None:
    """Where a dead letter holds its key, only the first of two bad rows may die."""
    poison = _failed(record(52), KafkaError.MSG_SIZE_TOO_LARGE, "MSG_SIZE_TOO_LARGE", FaultClass.ROW_PERMANENT)

    assert _names(Pieces(deque(), [poison, sent_back(record(43))]).conclude()) == {52: "SENT_BACK", 43: "SENT_BACK"}
    alone = Pieces(deque(), [poison, sent_back(record(43, key="other"))]).conclude()
    assert _names(alone) == {52: "MSG_SIZE_TOO_LARGE", 43: "SENT_BACK"}
