"""What tests ask of a running cluster: topics, settings, users, grants, and what its logs hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from tests.support.children import wait_for

_TIMEOUT_SECONDS = 20.0
_SCRAM_ITERATIONS = 4096
# The library leaves these two without annotations.
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_NO_LEADER_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._TRANSPORT,
    KafkaError._NOENT,  # The client has not heard of a leader yet.
}


class KafkaRecord(NamedTuple):
    """One record as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> bytes | None:
        """Return the first header of that name; KeyError when there is none."""
        return dict(reversed(self.headers))[name]


class KafkaAdmin:
    """Synchronous questions and orders to the cluster at `bootstrap`, each within 20 s or an error."""

    def __init__(self, bootstrap: str) -> None:
        self._config: dict[str, str | int] = {
            "bootstrap.servers": bootstrap,
            # A test that kills brokers must see them return at once, not after a back-off.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 250,
            "log_level": 0,
        }
        self._client: AdminClient | None = None

    @property
    def admin(self) -> AdminClient:
        """The AdminClient behind these methods, for what they do not offer. It is kept: its futures need it alive."""
        if self._client is None:
            self._client = AdminClient(dict(self._config))
        return self._client

    def close_clients(self) -> None:
        """Drop the connections."""
        self._client = None

    def live_brokers(self) -> set[int]:
        """Return the ids of the brokers that the cluster counts as alive; empty while none answers."""
        try:
            return set(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return set()

    # --- topics and settings ---------------------------------------------------------------------------------

    def create_topic(
        self, name: str, partitions: int = 3, replication: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and return its name when all its partitions have leaders."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config or {}))
        _all_done(self.admin.create_topics([topic], operation_timeout=_TIMEOUT_SECONDS))
        wait_for(
            lambda: len(self.leaders(name)) == partitions, timeout_seconds=_TIMEOUT_SECONDS, what=f"{name} has leaders"
        )
        self.end_offsets(name)  # Elected is not yet serving; the first one to answer for every partition is.
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and return when no broker lists it."""
        _all_done(self.admin.delete_topics([name], operation_timeout=_TIMEOUT_SECONDS))
        gone = "the topic is gone"
        wait_for(
            lambda: name not in self.admin.list_topics(timeout=5).topics, timeout_seconds=_TIMEOUT_SECONDS, what=gone
        )

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leading broker by partition, leaving out partitions that have none."""
        found = self.admin.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
        return {number: partition.leader for number, partition in found.partitions.items() if partition.leader >= 0}

    def alter_topic_config(self, topic: str, config: Mapping[str, str | None]) -> None:
        """Set topic settings; None takes one back to its default."""
        self._alter(ResourceType.TOPIC, topic, config)

    def alter_broker_config(self, broker: int | None, config: Mapping[str, str | None]) -> None:
        """Set dynamic settings of one broker, or of all with None."""
        self._alter(ResourceType.BROKER, "" if broker is None else str(broker), config)

    def _alter(self, kind: ResourceType, name: str, config: Mapping[str, str | None]) -> None:
        entries = [
            ConfigEntry(
                key, value, incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
            )
            for key, value in config.items()
        ]
        _all_done(self.admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]))

    # --- users and grants ------------------------------------------------------------------------------------

    def set_scram_password(self, user: str, password: str) -> None:
        """Make `user` known, or give it another password, while the brokers run."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, _SCRAM_ITERATIONS)
        _all_done(
            self.admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, info, password.encode())])
        )

    def remove_scram_user(self, user: str) -> None:
        """Forget `user`."""
        deletion = UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256)
        _all_done(self.admin.alter_user_scram_credentials([deletion]))

    def grant(self, user: str, topic: str, operation: AclOperation = AclOperation.WRITE) -> None:
        """Allow `user` an operation on a topic ("*" is every topic)."""
        _all_done(self.admin.create_acls([_binding(AclBinding, user, topic, operation)]))

    def revoke(self, user: str, topic: str, operation: AclOperation = AclOperation.WRITE) -> None:
        """Take back what `grant` gave."""
        _all_done(self.admin.delete_acls([_binding(AclBindingFilter, user, topic, operation)]))

    # --- what the log holds ----------------------------------------------------------------------------------

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the high watermark by partition."""
        return self._offsets(topic, _LATEST)

    def first_offsets(self, topic: str) -> dict[int, int]:
        """Return the first offset that is still kept, by partition."""
        return self._offsets(topic, _EARLIEST)

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        """Ask until every partition's leader answers: it may have been elected this very moment."""
        partitions = [TopicPartition(topic, number) for number in self._partitions(topic)]
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            futures = self.admin.list_offsets(dict.fromkeys(partitions, spec))
            try:
                return {at.partition: found.result(_TIMEOUT_SECONDS).offset for at, found in futures.items()}
            except KafkaException as refused:
                if refused.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _partitions(self, topic: str) -> list[int]:
        return sorted(self.admin.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic].partitions)

    def consume(
        self,
        *topics: str,
        isolation: str = "read_committed",
        until: int | Callable[[list[KafkaRecord]], bool] | None = None,
        timeout_seconds: float = 60.0,
    ) -> list[KafkaRecord]:
        """Read the topics from their beginning, each partition in offset order.

        `until` None reads to the end of every partition; a number waits for that many records; a function is asked
        after each batch whether the records suffice. Raises TimeoutError, saying how many there were.
        """
        config: dict[str, Any] = self._config | {
            "group.id": "tests",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        consumer = Consumer(config)
        try:
            starts = [
                TopicPartition(name, at, offset) for name in topics for at, offset in self.first_offsets(name).items()
            ]
            consumer.assign(starts)
            return _read(consumer, {(start.topic, start.partition) for start in starts}, until, timeout_seconds)
        finally:
            consumer.close()


def _read(
    consumer: Consumer,
    unread: set[tuple[str, int]],
    until: int | Callable[[list[KafkaRecord]], bool] | None,
    timeout_seconds: float,
) -> list[KafkaRecord]:
    """Read until `until` holds; `unread` are the partitions whose end was not reached yet."""
    records: list[KafkaRecord] = []
    deadline = time.monotonic() + timeout_seconds

    def enough() -> bool:
        if until is None:
            return not unread
        return len(records) >= until if isinstance(until, int) else until(records)

    while not enough():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{len(records)} records within {timeout_seconds:g} s, expected {until or 'to reach the end'}"
            )
        for message in consumer.consume(10_000, timeout=0.1):
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard((message.topic(), message.partition()))
            else:
                raise KafkaException(error)
    return records


def _record(message: Any) -> KafkaRecord:
    return KafkaRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )


def _binding(kind: type[AclBinding | AclBindingFilter], user: str, topic: str, operation: AclOperation) -> Any:
    return kind(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
    )


def _all_done(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result(_TIMEOUT_SECONDS)
