"""What is found wrong with a record before the client sees it."""

from __future__ import annotations

import json

import pytest

from outboxd.kafka.messages import MessageChecks
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.rows.records import WITHHELD
from outboxd.policy.rows.row_checks import TIMESTAMP_MS_MAX
from tests.unit.records import record


@pytest.mark.parametrize(
    ("created_at_ms", "fault"), [(1, None), (TIMESTAMP_MS_MAX, None), (TIMESTAMP_MS_MAX + 1, "INVALID_TIMESTAMP")]
)
def test_a_time_beyond_what_kafka_can_express_is_found_in_an_otherwise_plain_record(
    created_at_ms: int, fault: str | None
) -> None:
    found = MessageChecks("shop", 1_000_000).fault_of(record(1)._replace(created_at_ms=created_at_ms))

    assert (None if found is None else found.fault.name) == fault


def test_headers_that_were_not_shipped_are_too_large_by_the_stores_count() -> None:
    withheld = record(1, size_bytes=400_000)._replace(headers=WITHHELD)

    found = MessageChecks("shop", 1_000_000).headers(withheld)

    assert isinstance(found, DeliveryFault)
    assert found.fault.name == "MSG_SIZE_TOO_LARGE"
    assert "400000 bytes" in found.text


@pytest.mark.parametrize(("letters", "fault"), [(900_000, None), (1_000_000, "MSG_SIZE_TOO_LARGE")])
def test_headers_count_by_what_the_client_counts(letters: int, fault: str | None) -> None:
    text = json.dumps({"h": '"' * letters})
    checks = MessageChecks("shop", 1_000_000)

    found = checks.fault_of(record(1, size_bytes=len(text))._replace(headers=text, created_at_ms=1))

    assert (None if found is None else found.fault.name) == fault


def test_what_is_found_of_topics_is_remembered_of_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr("outboxd.kafka.messages.TOPICS_REMEMBERED_MAX", 2)
    monkeypatch.setattr("outboxd.kafka.messages.topic_name_problem", looked_at.append)
    checks = MessageChecks("shop", 1_000_000)

    for topic in ("a", "a", "b", "a", "c", "a"):
        assert checks.topic_fault(topic) is None

    assert looked_at == ["a", "b", "c", "a"]
