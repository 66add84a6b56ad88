"""What a benchmark says of brokers that answer nothing."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from outboxd.bench import scratch as module
from outboxd.bench.scratch import Scratch
from outboxd.config import load
from outboxd.errors import BrokerUnavailableError


class SilentAdmin:
    """Takes what is asked, and never answers."""

    def create_topics(self, topics: list[Any], **_: object) -> dict[str, Future[None]]:
        return {topic.topic: Future() for topic in topics}

    def delete_topics(self, names: list[str], **_: object) -> dict[str, Future[None]]:
        return {name: Future() for name in names}


def test_a_broker_that_makes_no_topic_is_told_with_its_name_and_so_is_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KAFKA_SECONDS_MAX", -1.0)  # No time is waited for what never comes.
    remarks: list[str] = []
    scratch = Scratch(load(None, env={"OUTBOXD_CONFIG": "/dev/null"}), remarks.append)
    scratch._admin = SilentAdmin()  # type: ignore[assignment] # as far as it is asked
    with pytest.raises(BrokerUnavailableError, match=r"did not make the topic outboxd-bench-.* look at the brokers"):
        scratch.topic()
    scratch.__exit__(None, None, None)
    assert len(remarks) == 1
    assert "could not be deleted (no answer); delete it by hand" in remarks[0]
