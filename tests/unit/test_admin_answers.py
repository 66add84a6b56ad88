"""A client of which the cluster was asked in vain is gone at once, with its threads and connections: it does not wait
for the garbage collector, which a quiet daemon has no reason to run.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic

from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.cluster import topic_limits
from outboxd.kafka.cluster.topic_limits import topic_configs
from outboxd.kafka.transactional import progress_log
from outboxd.kafka.transactional.progress_log import ensure_topic

CLIENTS: list[weakref.ref[RefusingClient]] = []


class RefusingClient:
    """An admin client whose every wish is refused with `code`."""

    code = KafkaError.TOPIC_AUTHORIZATION_FAILED

    def __init__(self, *_: object, **__: object) -> None:
        CLIENTS.append(weakref.ref(self))

    def describe_configs(
        self, resources: Sequence[ConfigResource], request_timeout: float
    ) -> dict[ConfigResource, Future[Any]]:
        return {resource: self._refused() for resource in resources}

    def create_topics(self, topics: Sequence[NewTopic], request_timeout: float) -> dict[str, Future[Any]]:
        return {topic.topic: self._refused() for topic in topics}

    def _refused(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(KafkaException(KafkaError(self.code)))
        return future


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but counted references frees anything."""
    monkeypatch.setattr(topic_limits, "AdminClient", RefusingClient)
    monkeypatch.setattr(progress_log, "AdminClient", RefusingClient)
    CLIENTS.clear()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_client_that_may_not_see_a_topics_settings_is_let_go() -> None:
    assert list(topic_configs({}, ["orders", "payments"])) == []
    assert [client() for client in CLIENTS] == [None]


def test_a_client_that_may_not_make_the_progress_topic_is_let_go() -> None:
    with pytest.raises(KafkaException) as refused:
        ensure_topic({}, "progress", 1)
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    # A recovery that failed tells its cause in words, and nobody keeps the exception.
    del refused
    assert [client() for client in CLIENTS] == [None]


def test_a_progress_topic_that_another_made_meanwhile_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RefusingClient, "code", KafkaError.TOPIC_ALREADY_EXISTS)
    ensure_topic({}, "progress", 1)
    assert [client() for client in CLIENTS] == [None]


def test_an_answer_is_what_was_answered_refused_or_a_bug() -> None:
    answered: Future[int] = Future()
    answered.set_result(5)
    assert answer_of(answered, 1) == 5
    broken: Future[int] = Future()
    broken.set_exception(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        answer_of(broken, 1)
    with pytest.raises(TimeoutError):
        answer_of(Future[int](), 0)
