"""What exactly-once delivery needs of the cluster, looked at before it is needed; for `outboxd check`.

The surest look at rights and time-outs is to ask for what the daemon will ask for: a producer with a
`transactional.id`. With the daemon's own it would fence a daemon at work, so a name beside it is used, under the
same prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType, TopicDescription

from outboxd.kafka.checks.progress_writers import foreign_writer
from outboxd.kafka.checks.replication import replication_warnings
from outboxd.kafka.client.client_config import CLIENT_LOGGER, DEFAULTS, silent, transaction_timeout_ms
from outboxd.kafka.client.codes import FORBIDDEN, why_unanswered
from outboxd.kafka.transactional.progress_log import TOPIC_CONFIG
from outboxd.policy.exchange.findings import Finding, Weight

ANSWER_SECONDS: Final = 10.0
CHECK_SUFFIX: Final = "-check"
_AREA: Final = "exactly-once"
_MAKE_IT: Final = "create it with one partition, cleanup.policy=compact, three replicas and min.insync.replicas=2"
_NEEDED = frozenset({AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE})
_FORBIDDEN = (*FORBIDDEN, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)


def inspect_transactions(
    properties: Mapping[str, str], transactional_id: str, topic: str, settled: int = 0, lineage: str = ""
) -> Iterator[Finding]:
    """Yield what keeps exactly-once from working, or from keeping its word; brokers are known to answer.

    Args:
        properties: the user's librdkafka properties.
        transactional_id: the shard's.
        topic: the progress topic.
        settled: the last transaction that the database knows as settled; 0: none.
        lineage: which database and table it is, as progress records name it; empty where that is not known.
    """
    admin = AdminClient(silent(properties))
    try:
        yield from _producer(properties, transactional_id)
        yield from _topic(admin, topic, settled)
        if lineage:
            yield from foreign_writer(properties, topic, lineage, _AREA)
    except (KafkaException, TimeoutError) as error:
        yield Finding(_AREA, Weight.UNAVAILABLE, f"the cluster does not tell: {why_unanswered(error)}")


def _producer(properties: Mapping[str, str], transactional_id: str) -> Iterator[Finding]:
    timeout_ms = transaction_timeout_ms(properties)
    config: dict[str, Any] = {
        **DEFAULTS,
        **silent(properties),
        "transaction.timeout.ms": timeout_ms,
        "message.timeout.ms": timeout_ms,
        "transactional.id": transactional_id + CHECK_SUFFIX,
    }
    try:
        # A refusal is fatal to the client, which says that at any level; a logger hears only what is polled for.
        Producer(config, logger=CLIENT_LOGGER).init_transactions(ANSWER_SECONDS)
    except KafkaException as refused:
        error: KafkaError = refused.args[0]
        if error.code() in _FORBIDDEN:
            yield Finding(
                _AREA,
                Weight.FORBIDDEN,
                f"no transaction is allowed: {error.str()}",
                f"allow WRITE and DESCRIBE on the transactional id {transactional_id}, prefixed",
            )
        elif error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
            yield Finding(
                _AREA,
                Weight.MISCONFIGURED,
                f"the brokers' transaction.max.timeout.ms is below {timeout_ms}",
                'raise it, or set a smaller "transaction.timeout.ms" in [kafka]',
            )
        elif error.code() == KafkaError._INVALID_ARG:
            yield Finding(_AREA, Weight.MISCONFIGURED, f"the client refuses [kafka]: {error.str()}")
        else:
            yield Finding(
                _AREA,
                Weight.UNAVAILABLE,
                f"no transaction can be begun within {ANSWER_SECONDS:.0f} s: {error.str()}",
                "look at the brokers' topic __transaction_state: its replicas, and its min.insync.replicas",
            )
    else:
        yield Finding(_AREA, Weight.FINE, f"transactions as {transactional_id}")


def _topic(admin: AdminClient, topic: str, settled: int) -> Iterator[Finding]:
    future = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=ANSWER_SECONDS
    )[topic]
    try:
        description = future.result(ANSWER_SECONDS + 1)
    except KafkaException as refused:
        yield from _absent(admin, topic, settled, refused.args[0])
        return
    yield from _faults_of(admin, topic, description)


def _absent(admin: AdminClient, topic: str, settled: int, error: KafkaError) -> Iterator[Finding]:
    if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        yield Finding(_AREA, Weight.FORBIDDEN, f"{topic}: {error.str()}", f"allow READ, WRITE and DESCRIBE on {topic}")
        return
    if settled:
        # The recovery makes none either: what became of later transactions, only the one that is gone could tell.
        yield Finding(
            _AREA,
            Weight.MISCONFIGURED,
            f"the progress topic {topic} is not there, and transaction {settled} was settled: nothing is sent before "
            "it is made again",
            f"{_MAKE_IT}; what was committed after that transaction may go twice",
        )
        return
    wanted = NewTopic(topic, num_partitions=1, config=dict(TOPIC_CONFIG))
    try:
        admin.create_topics([wanted], request_timeout=ANSWER_SECONDS, validate_only=True)[topic].result(
            ANSWER_SECONDS + 1
        )
    except KafkaException as refused:
        yield Finding(
            _AREA,
            Weight.FORBIDDEN if refused.args[0].code() in _FORBIDDEN else Weight.MISCONFIGURED,
            f"the progress topic {topic} is not there, and cannot be made: {refused.args[0].str()}",
            _MAKE_IT,
        )
    else:
        yield Finding(
            _AREA,
            Weight.WARNING,
            f"the progress topic {topic} is not there; the daemon makes it with the brokers' default replication",
            _MAKE_IT,
        )


def _faults_of(admin: AdminClient, topic: str, description: TopicDescription) -> Iterator[Finding]:
    operations = set(description.authorized_operations or ())
    missing = sorted(operation.name for operation in _NEEDED - operations)
    if operations and AclOperation.ALL not in operations and missing:
        yield Finding(
            _AREA,
            Weight.FORBIDDEN,
            f"{topic}: {', '.join(missing)} not allowed",
            f"allow {', '.join(missing)} on {topic}",
        )
    if len(description.partitions) != 1:
        count = len(description.partitions)
        yield Finding(
            _AREA,
            Weight.MISCONFIGURED,
            f"{topic} has {count} partitions: its records would have no order",
            "delete it while no daemon runs and all is settled, and create it with one",
        )
    config = _config(admin, topic)
    yield from _forgetting(topic, config)
    # With records of it what was sent is forgotten, and rows go twice.
    yield from replication_warnings(_AREA, topic, description, config)


def _config(admin: AdminClient, topic: str) -> dict[str, str]:
    """The topic's effective configuration; empty where that may not be seen."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result(
            ANSWER_SECONDS + 1
        )
    except KafkaException:
        return {}
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _forgetting(topic: str, config: Mapping[str, str]) -> Iterator[Finding]:
    policy = config.get("cleanup.policy", "compact")
    retention = {name: config.get(name, "-1") for name in ("retention.ms", "retention.bytes")}
    limits = [f"{name}={value}" for name, value in retention.items() if int(value) >= 0]
    if "delete" in policy and limits:
        yield Finding(
            _AREA,
            Weight.MISCONFIGURED,
            f"{topic} forgets its records ({', '.join(limits)}): a daemon that is down for longer could not tell what "
            "it had sent",
            f"set cleanup.policy=compact on {topic}",
        )
    elif "compact" not in policy:
        yield Finding(
            _AREA,
            Weight.WARNING,
            f"{topic} is not compacted: it grows without a limit",
            f"set cleanup.policy=compact on {topic}",
        )
