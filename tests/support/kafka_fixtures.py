"""Pytest fixtures of the Kafka brokers: one broker a run, three for a file that asks, fresh topics for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import pytest

from tests.support.kafka import KafkaCluster
from tests.support.kafka_jars import KafkaMissingError


class MakeTopic(Protocol):
    """Creates a topic with a name that no other test uses, and returns the name."""

    def __call__(
        self, partitions: int = 3, config: Mapping[str, str] | None = None, *, prefix: str = "topic"
    ) -> str: ...


def started(make: Callable[[], KafkaCluster]) -> Iterator[KafkaCluster]:
    """Run a cluster around a fixture. Without Java or Maven the test fails in CI, and is skipped elsewhere."""
    try:
        cluster = make()
    except KafkaMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """A broker shared by the whole run, without credentials. A test that stops or freezes it must bring it back."""
    yield from started(lambda: KafkaCluster(brokers=1))


@pytest.fixture(scope="module")
def kafka_three() -> Iterator[KafkaCluster]:
    """Three brokers, two of them needed for `acks=all`. A test must bring back what it stops.

    They end with the file: an idle cluster takes a tenth of a core, and few files want one.
    """
    yield from started(lambda: KafkaCluster(brokers=3))


@pytest.fixture(autouse=True)
def shared_brokers_work(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed between stopping a shared broker and bringing it back spoils no other."""
    yield
    for name in ("kafka", "kafka_three"):
        if name in request.fixturenames and not request.getfixturevalue(name).works:
            request.getfixturevalue(name).heal()


@pytest.fixture
def topic(kafka: KafkaCluster) -> MakeTopic:
    """A maker of fresh topics on the broker `kafka`."""

    def make(partitions: int = 3, config: Mapping[str, str] | None = None, *, prefix: str = "topic") -> str:
        return kafka.create_topic(fresh_name(prefix), partitions=partitions, config=config)

    return make


def fresh_name(prefix: str = "topic") -> str:
    """Return a topic name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
