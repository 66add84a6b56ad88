"""A Kafka broker inside this process, for the demo: librdkafka's own mock cluster, on real TCP, up in milliseconds.

It speaks the protocol to other processes too: producing and consuming, idempotence, headers, compression, group
commits. What it does not do, and why it proves nothing about exactly-once or about errors: topics appear when first
named, always with four partitions of about 5 MiB (the oldest records are dropped); there is no administration; illegal
topic names are taken; read-committed readers see aborted records, and zombies are not fenced.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from outboxd.errors import BrokerUnavailableError

_START_TIMEOUT_SECONDS = 5.0


class EmbeddedBroker:
    """One in-process broker, listening on a free loopback port until `close()`.

    Raises BrokerUnavailableError when librdkafka cannot start it. Use it as a context manager, or close it.
    """

    def __init__(self) -> None:
        # The cluster belongs to the client that asked for it, and ends with it: this client does nothing else.
        self._owner: Producer | None = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        try:
            brokers = self._owner.list_topics(timeout=_START_TIMEOUT_SECONDS).brokers
        except KafkaException as refused:
            self.close()
            raise BrokerUnavailableError(f"the in-process broker did not start: {refused}") from refused
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())

    @property
    def bootstrap(self) -> str:
        """`host:port`, as `bootstrap.servers` takes it."""
        return self._bootstrap

    def close(self) -> None:
        """Stop listening and forget every record. Safe to call twice."""
        self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
