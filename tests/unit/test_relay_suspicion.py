"""What is known of rows that were refused alone, by what others of their batch met."""

from __future__ import annotations

import pytest

from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.relay.report.suspicion import Finding, Suspicions
from tests.unit.records import record

CODE = 32
REFUSED = DeliveryFault(fault_of(CODE), "refused")


def passed(suspicions: Suspicions, record_id: int, topic: str, now: float) -> None:
    suspicions.suspect(record_id, CODE, now)
    suspicions.passed(Report(record(record_id, topic=topic), None, 0, 0, True), now)


def finding(suspicions: Suspicions, record_id: int, topic: str) -> Finding:
    report = Report(record(record_id, topic=topic), REFUSED, None, None, True)
    return suspicions.find(report, CODE, 1.0, 9.0, others_in_flight=False)


def test_that_a_suspect_passed_is_remembered_of_a_bounded_number_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outboxd.relay.report.suspicion.PASSED_MAX", 2)
    suspicions = Suspicions()
    for place, topic in enumerate(["a", "b", "a", "c"]):
        passed(suspicions, place, topic, 2.0 + place)

    assert finding(suspicions, 10, "a") is Finding.AGAIN
    assert finding(suspicions, 10, "a") is Finding.GUILTY
    assert finding(suspicions, 11, "b") is Finding.OPEN
    assert finding(suspicions, 12, "c") is Finding.AGAIN
