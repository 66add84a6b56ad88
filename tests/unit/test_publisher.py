"""What the client raises out of its own poll is the producer's failure, never the daemon's end."""

from __future__ import annotations

from typing import Any

import pytest

from outboxd.kafka.publisher import KafkaPublisher


class FailingProducer:
    """Fails as the real one does where a fatal error comes while a report is served."""

    def __init__(self, config: dict[str, Any]) -> None:
        del config

    def poll(self, timeout_seconds: float) -> int:
        del timeout_seconds
        raise SystemError("<method 'get' of 'dict' objects> returned a result with an exception set")

    def purge(self, **_: object) -> None:
        """Drop nothing."""

    flush = poll


@pytest.mark.parametrize("call", ["poll", "flush"])
def test_a_report_that_a_fatal_error_swallows_is_a_failure_of_the_producer(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.kafka.publisher.Producer", FailingProducer)
    publisher = KafkaPublisher({}, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000)
    assert publisher.failure() is None
    getattr(publisher, call)(0.001)
    failure = publisher.failure()
    assert failure is not None
    assert failure.fault.name == "NEVER_REPORTED"
    assert "a report was lost as the producer failed" in failure.text
    publisher.rebuild()
    assert publisher.failure() is None
    publisher.close()
