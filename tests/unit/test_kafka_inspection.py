"""What `check` says of a cluster whose brokers go away while they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, ResourceType

from outboxd.kafka.checks import inspection, transaction_checks
from outboxd.policy.exchange.findings import Finding, Weight

GONE = KafkaException(KafkaError(KafkaError._TRANSPORT, "gone"))


class LeavingBroker:
    """Answers the first question with its metadata; how the further ones end, the test says."""

    def __init__(self, topics: Exception, further: Exception) -> None:
        self._topics, self._further = topics, further
        self.asked = 0

    def list_topics(self, timeout: float) -> SimpleNamespace:
        self.asked += 1
        if self.asked > 1:
            raise self._further
        return SimpleNamespace(brokers={1: SimpleNamespace(id=1, host="there", port=9092)}, topics={})

    def describe_topics(self, topics: TopicCollection, **_: object) -> Mapping[str, Future[Any]]:
        return {"orders": failed(self._topics)}

    def describe_configs(self, resources: list[Any], **_: object) -> Mapping[Any, Future[Any]]:
        return {resource: self._described(resource) for resource in resources}

    def _described(self, resource: ConfigResource) -> Future[Any]:
        if resource.restype is not ResourceType.BROKER:
            return failed(self._further)
        answered: Future[Any] = Future()
        answered.set_result({})
        return answered


def failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


@pytest.mark.parametrize("further", [GONE, TimeoutError()])
@pytest.mark.parametrize("topics", [KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)), TimeoutError()])
def test_brokers_that_go_away_between_two_questions_are_unavailable_in_words(
    monkeypatch: pytest.MonkeyPatch, topics: Exception, further: Exception
) -> None:
    monkeypatch.setattr(inspection, "AdminClient", lambda *_, **__: LeavingBroker(topics, further))
    first, last = inspection.inspect({"bootstrap.servers": "there:9092"}, {"orders": 1})
    assert first == Finding("broker", Weight.FINE, "1 broker: there:9092")
    assert (last.area, last.weight) == ("broker", Weight.UNAVAILABLE)
    assert "went away" in last.message


def test_a_cluster_that_does_not_tell_of_transactions_in_time_is_unavailable_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transaction_checks, "AdminClient", lambda *_: LeavingBroker(TimeoutError(), TimeoutError()))
    monkeypatch.setattr(transaction_checks, "_producer", lambda *_: iter(()))
    (found,) = transaction_checks.inspect_transactions({}, "id", "orders")
    assert (found.weight, found.message) == (Weight.UNAVAILABLE, "the cluster does not tell: no answer in time")
