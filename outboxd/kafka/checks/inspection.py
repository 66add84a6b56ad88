"""What the daemon needs of the cluster, looked at all at once: a broker that answers, topics that are there, safe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    ResourceType,
    TopicDescription,
)

from outboxd.errors import ThreadsError
from outboxd.kafka.checks.replication import replication_warnings
from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.client_config import CLIENT_RECORD_BYTES_MAX, is_out_of_threads
from outboxd.kafka.client.cluster_failure import connection_error, silence_of
from outboxd.kafka.client.codes import FORBIDDEN, NO_TOPIC, why_unanswered
from outboxd.kafka.client.connection_remedies import CREDENTIAL_CODES, remedy_of, remedy_of_refused, without_times
from outboxd.policy.exchange.findings import Finding, Weight
from outboxd.policy.rows.row_checks import topic_name_problem

TIMEOUT_SECONDS = 5.0
ATTEMPT_SECONDS = 1.0
TOPICS_LISTED_MAX = 100
BROKERS_ASKED_MAX = 100
CAUSES_TOLD_MAX = 5
_PATIENCE: Mapping[str, object] = {
    "socket.connection.setup.timeout.ms": round(1000 * (TIMEOUT_SECONDS - ATTEMPT_SECONDS))
}
"""So that it is told while it is waited for that a server keeps silent."""
_UNANSWERED = (KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT)


@dataclass
class _Client:
    """An AdminClient, and what it said about its connections."""

    properties: Mapping[str, str]
    errors: list[KafkaError] = field(default_factory=list)

    def __post_init__(self) -> None:
        config: dict[str, Any] = {**_PATIENCE, **self.properties, "error_cb": self.errors.append, "logger": self}
        self.admin = AdminClient(config)

    def log(self, level: int, _form: str, *args: object) -> None:
        """Take what it says of connections; its complaints about a producer's properties are nobody's business."""
        error = connection_error(level, *args)
        if error is not None:
            self.errors.append(error)

    def metadata(self) -> ClusterMetadata | KafkaError:
        """What the first broker to answer knows, or why none did; a refused password is not waited for."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return self.admin.list_topics(timeout=ATTEMPT_SECONDS)
            except KafkaException as error:
                # What happened to the connections is only told while somebody polls.
                self.admin.poll(0)
                if time.monotonic() >= deadline or self.refusals():
                    refused: KafkaError = error.args[0]
                    return refused

    def refusals(self) -> list[KafkaError]:
        """The brokers' refusals of the credentials."""
        return [error for error in self.errors if error.code() in CREDENTIAL_CODES]


def inspect(properties: Mapping[str, str], topics: Mapping[str, int]) -> list[Finding]:
    """Look at the cluster, and at these topics.

    Args:
        properties: the user's librdkafka properties.
        topics: name → how many pending rows wait for it (0: it is configured).
    """
    try:
        client = _Client(properties)
    except KafkaException as error:
        if is_out_of_threads(error):
            return [Finding("broker", Weight.UNAVAILABLE, str(ThreadsError(error.args[0].str())))]
        words = error.args[0].str()
        message = f"the client refuses [kafka]: {words}"
        return [Finding("broker", Weight.MISCONFIGURED, message, remedy_of_refused(words))]
    metadata = client.metadata()
    if isinstance(metadata, KafkaError):
        return [_no_answer(client)]
    findings: list[Finding] = []
    try:
        for finding in _cluster(client, metadata, topics):
            findings.append(finding)  # noqa: PERF402 - what was found before the brokers went away stays
    except (KafkaException, TimeoutError) as error:
        findings.append(_gone(error))
    return findings


def _cluster(client: _Client, metadata: ClusterMetadata, topics: Mapping[str, int]) -> Iterator[Finding]:
    brokers = ", ".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
    count = len(metadata.brokers)
    yield Finding("broker", Weight.FINE, f"{count} broker{'s' * (count != 1)}: {brokers}")
    yield from _out_of_reach(client, metadata)
    legal = [topic for topic in topics if topic_name_problem(topic) is None]
    yield from _illegal(topics)
    if legal:
        yield from _topics(
            client.admin, {topic: topics[topic] for topic in legal[:TOPICS_LISTED_MAX]}, client.properties
        )
    if len(legal) > TOPICS_LISTED_MAX:
        yield Finding("topics", Weight.WARNING, f"only {TOPICS_LISTED_MAX} of {len(legal)} topics were looked at")


def _out_of_reach(client: _Client, metadata: ClusterMetadata) -> Iterator[Finding]:
    """The brokers that do not answer at the addresses which they advertise: another told of them."""
    asked = []
    for broker in list(metadata.brokers.values())[:BROKERS_ASKED_MAX]:
        # A question that only this one answers, and be it with a refusal.
        resource = ConfigResource(ResourceType.BROKER, str(broker.id))
        (future,) = client.admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS).values()
        asked.append((broker, future))
    for broker, future in asked:
        answer = _result(future)
        if not isinstance(answer, KafkaError) or answer.code() not in _UNANSWERED:
            continue
        client.admin.poll(0)
        place = f"{broker.host}:{broker.port}"
        said = [each for each in client.errors if f"{place}/{broker.id}: " in each.str()]
        cause = said[-1] if said else silence_of(place)
        yield Finding(
            "broker",
            Weight.UNAVAILABLE,
            f"broker {broker.id} does not answer at the address that it advertises: {without_times(cause.str())}",
            remedy_of(cause),
        )


def _gone(error: KafkaException | TimeoutError) -> Finding:
    """A broker that answered one question and no other."""
    return Finding(
        "broker",
        Weight.UNAVAILABLE,
        f"the brokers went away while they were asked: {why_unanswered(error)}",
        "look at the brokers, and run it again",
    )


def _no_answer(client: _Client) -> Finding:
    refused = client.refusals()
    if refused:
        return Finding(
            "broker",
            Weight.FORBIDDEN,
            f"the brokers refuse the credentials: {without_times(refused[-1].str())}",
            f"{remedy_of(refused[-1])}; rows wait meanwhile and none is lost",
        )
    servers = client.properties.get("bootstrap.servers", "")
    told = [each for each in client.errors if each.code() != KafkaError._ALL_BROKERS_DOWN] or [silence_of(servers)]
    causes = {without_times(each.str()): remedy_of(each) for each in told}
    first = list(causes)[:CAUSES_TOLD_MAX]
    return Finding(
        "broker",
        Weight.UNAVAILABLE,
        f"no broker answers within {TIMEOUT_SECONDS:.0f} s: {'; '.join(first)}",
        "; ".join(dict.fromkeys(causes[cause] for cause in first)),
    )


def _illegal(topics: Mapping[str, int]) -> Iterator[Finding]:
    for topic, rows in topics.items():
        problem = topic_name_problem(topic)
        if problem is not None:
            yield Finding("topics", Weight.WARNING, f"{problem}: {_rows(rows)} will be dead-lettered as INVALID_TOPIC")


def _topics(admin: AdminClient, topics: Mapping[str, int], properties: Mapping[str, str]) -> Iterator[Finding]:
    futures = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=TIMEOUT_SECONDS
    )
    configs = _configs(admin, list(topics))
    creates = None
    for topic, future in futures.items():
        description = _result(future)
        if isinstance(description, TopicDescription):
            yield from _topic(topic, description, configs.get(topic, {}), properties)
        elif description.code() in NO_TOPIC:
            creates = _creates_topics(admin) if creates is None else creates
            yield _missing(topic, topics[topic], creates=creates)
        elif description.code() in FORBIDDEN:
            yield Finding(
                "topics", Weight.FORBIDDEN, f"{topic}: the brokers refuse to describe it ({_rows(topics[topic])})",
                f"allow DESCRIBE and WRITE on {topic}; the rows wait meanwhile",
            )  # fmt: skip
        else:
            yield Finding("topics", Weight.UNAVAILABLE, f"{topic}: {description.str()}")


def _missing(topic: str, rows: int, *, creates: bool) -> Finding:
    if creates:
        return Finding(
            "topics", Weight.WARNING, f"{topic} is not there; the brokers create it at its first record",
            "create it with the partitions and replicas that it should have",
        )  # fmt: skip
    return Finding(
        "topics", Weight.UNAVAILABLE, f"{topic} is not there, or may not be seen: {_waiting(rows)}",
        "create it, or allow DESCRIBE and WRITE on it; nothing is lost meanwhile",
    )  # fmt: skip


def _topic(
    topic: str, description: TopicDescription, config: Mapping[str, str], properties: Mapping[str, str]
) -> Iterator[Finding]:
    operations = description.authorized_operations
    if operations and not {AclOperation.WRITE, AclOperation.ALL} & set(operations):
        yield Finding(
            "topics", Weight.FORBIDDEN, f"{topic}: WRITE is not allowed", f"allow WRITE on {topic}; its rows wait"
        )
        return
    warnings = list(_warnings(topic, description, config, properties))
    yield from warnings
    if not warnings:
        count = len(description.partitions)
        yield Finding("topics", Weight.FINE, f"{topic}: {count} partition{'s' * (count != 1)}")


def _warnings(
    topic: str, description: TopicDescription, config: Mapping[str, str], properties: Mapping[str, str]
) -> Iterator[Finding]:
    def warning(message: str, remedy: str) -> Finding:
        return Finding("topics", Weight.WARNING, f"{topic}: {message}", remedy)

    yield from replication_warnings("topics", topic, description, config)
    if "compact" in config.get("cleanup.policy", ""):
        yield warning("it is compacted: rows without a key are refused", "give every row of it a key")
    record_bytes_max = int(config.get("max.message.bytes", 0))
    batch_bytes = int(properties.get("batch.size", CLIENT_RECORD_BYTES_MAX))
    if record_bytes_max and record_bytes_max < batch_bytes:
        yield warning(
            f"max.message.bytes is {record_bytes_max}, the client's batches may have {batch_bytes}: refused ones go "
            "again record by record",
            f'set "batch.size" = {record_bytes_max} in [kafka], or raise the topic\'s limit',
        )


def _configs(admin: AdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Topic → its effective configuration, as far as it may be seen."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    found = {}
    for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_SECONDS).items():
        entries = _result(future)
        if isinstance(entries, dict):
            found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return found


def _creates_topics(admin: AdminClient) -> bool:
    """Whether the brokers make a topic when it is first named; no where that may not be seen."""
    brokers = list(admin.list_topics(timeout=TIMEOUT_SECONDS).brokers)
    if not brokers:
        return False
    resource = ConfigResource(ResourceType.BROKER, str(brokers[0]))
    (future,) = admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS).values()
    entries = _result(future)
    return isinstance(entries, dict) and getattr(entries.get("auto.create.topics.enable"), "value", "") == "true"


def _result(future: Future[Any]) -> Any:
    """What the broker answered, or the KafkaError with which it refused."""
    answer = answer_of(future, TIMEOUT_SECONDS + 5.0)
    return answer.args[0] if isinstance(answer, KafkaException) else answer


def _rows(count: int) -> str:
    return f"{count:,} pending row{'s' * (count != 1)}"


def _waiting(rows: int) -> str:
    if not rows:
        return "copies of dead letters wait for it, as alerts.dead_letter_topic has it"
    return f"{_rows(rows)} wait{'s' * (rows == 1)}"
