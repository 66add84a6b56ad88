"""The producer's configuration: what the guarantees need, what the limits imply, and the user's own properties
between them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.errors import ConfigError, ThreadsError
from outboxd.kafka.client.connection_remedies import remedy_of_refused
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER

CLIENT_LOGGER: Final = logging.getLogger("librdkafka")
"""Where the Kafka clients' own lines go, instead of standard error; the daemon's log takes its warnings."""

# What of a URL may be a secret: a user with a password, and all parameters.
_USER: Final = re.compile(r"(?<=://)[^\s\"/?]*@")
_PARAMETERS: Final = re.compile(r"(://[^\s\"?]*\?)[^\s\"]+")


def _without_secrets(line: logging.LogRecord) -> bool:
    # The client names the endpoint that gives it no token by its whole URL, as it was configured.
    line.msg, line.args = _PARAMETERS.sub(r"\1********", _USER.sub("********@", line.getMessage())), ()
    return True


CLIENT_LOGGER.addFilter(_without_secrets)

DEFAULTS: Mapping[str, str | int | bool] = {
    "client.id": "outboxd",
    # Only while there is a backlog: else the relay has what is queued sent at once.
    "linger.ms": 2,
    "reconnect.backoff.max.ms": 1000,
    "socket.keepalive.enable": True,
}
"""What a user may change. Reconnecting is quick, so that relaying resumes within seconds of healing."""

UNREAD: Mapping[str, str | int | bool] = {"statistics.interval.ms": 0}
"""What no client makes, since nobody takes it: one that rests, or only asks, would keep all of it for ever."""

GUARANTEES: Mapping[str, str | int | bool] = {
    **UNREAD,
    "enable.idempotence": True,
    "acks": "all",
    # An outage must never drop the middle of a queue: the relay itself watches the age of what is in flight.
    "message.timeout.ms": 0,
}
"""What no one may change."""

CHAIN_LINGER_MS = 1
"""Long enough for a chain to be given whole."""

_LONE: Mapping[str, str | int | bool] = {"batch.num.messages": 1, "linger.ms": 0}
"""One record a batch, at once."""

_CHAIN: Mapping[str, str | int | bool | float] = {
    "enable.gapless.guarantee": True,
    "max.in.flight.requests.per.connection": 1,
    "linger.ms": CHAIN_LINGER_MS,
}

_LONE_TRANSACTION: Mapping[str, str | int | bool] = {**_LONE, "max.in.flight.requests.per.connection": 1}
"""One request at a time, too: those behind a refused one would be refused for their sequence, and the client would take
a new epoch before its abort is through. Brokers that are still at that abort refuse the epoch at first, and the client
asks again after half a second (measured).
"""

QUICK_CONNECTION: Mapping[str, str | int | bool] = {"reconnect.backoff.ms": 20}
"""For clients that others wait for: the client's first connections come half of that apart, 50 ms by default."""

TRANSACTION_TIMEOUT_MS: Final = 30_000
"""How long brokers let one be open: an owner that dies keeps readers waiting so long, or until a successor comes."""

TRANSACTION_LINGER_MS = 50
"""So that batches are full while a transaction is being filled; once it is, all goes at once."""

_QUEUE_SHARES = 10

ANY_PARTITION = -1
"""The partitioner chooses."""

CLIENT_RECORD_BYTES_MAX = 1_000_000
"""librdkafka's default of `message.max.bytes`."""


def producer_config(
    properties: Mapping[str, str], *, in_flight_rows_max: int, in_flight_bytes_max: int
) -> dict[str, object]:
    """Return the shared producer's configuration.

    Args:
        properties: the user's, by librdkafka's own names.
        in_flight_rows_max: the relay's bound; the client's queue holds many times more, since what is stuck counts
            beside that, and must not push back what is for other partitions.
        in_flight_bytes_max: likewise, in bytes.
    """
    queue_kbytes = _QUEUE_SHARES * max(16 * 1024, 2 * in_flight_bytes_max // 1024)
    limits: dict[str, object] = {
        "queue.buffering.max.messages": _QUEUE_SHARES * max(1_000, in_flight_rows_max),
        # A record larger than that would never be taken, and all others would wait behind it.
        "queue.buffering.max.kbytes": max(queue_kbytes, record_bytes_max(properties) // 1024 + 1),
    }
    return {**DEFAULTS, **limits, **properties, **GUARANTEES}


def check_client(properties: Mapping[str, str], *, is_transactional: bool = False) -> None:
    """Make a client with these properties and drop it: files that they name are read then, and no broker is asked.

    One with transactions has time-outs of its own, with which not every property goes.

    Raises:
        ConfigError: the client cannot be made.
        ThreadsError: it cannot be made now.
    """
    config: dict[str, object] = {**DEFAULTS, **properties, **GUARANTEES}
    if is_transactional:
        timeout_ms = transaction_timeout_ms(properties)
        config = transactional_config(
            properties, transactional_id="outboxd", timeout_ms=timeout_ms, rows_max=1, is_lone=False
        )
    try:
        # Its name in Kafka is said to a broker when transactions begin, which none does here.
        Producer(config, logger=CLIENT_LOGGER)
    except KafkaException as error:
        if is_out_of_threads(error):
            raise ThreadsError(error.args[0].str()) from error
        raise ConfigError(
            f"the client refuses [kafka]: {error.args[0].str()}; {remedy_of_refused(error.args[0].str())}"
        ) from error


def is_out_of_threads(error: KafkaException) -> bool:
    """Say whether a client could not be made for want of a thread, and not for what its properties say."""
    code: int = error.args[0].code()
    return code == KafkaError._CRIT_SYS_RESOURCE


def lone_config(properties: Mapping[str, str]) -> dict[str, object]:
    """Return the configuration of the isolating producer: one record a batch, at once."""
    return {
        **DEFAULTS,
        **properties,
        **GUARANTEES,
        **_LONE,
        "client.id": f"{properties.get('client.id', 'outboxd')}-alone",
    }


def chain_config(shared: Mapping[str, object]) -> dict[str, object]:
    """Return the configuration of the producer of chains: the shared producer's, but that it ends where it could not
    keep all it was given in its order, with nothing sent behind what failed.
    """
    return {**shared, **_CHAIN, "client.id": f"{shared['client.id']}-chains"}


def transactional_config(
    properties: Mapping[str, str], *, transactional_id: str, timeout_ms: int, rows_max: int, is_lone: bool
) -> dict[str, object]:
    """Return the configuration of the transactional producer.

    Args:
        properties: the user's, by librdkafka's own names.
        transactional_id: the shard's; a newer producer of that id fences the older ones (KIP-98).
        timeout_ms: how long a transaction may be open, in milliseconds.
        rows_max: the most rows of one transaction; the client's queue holds a few of them.
        is_lone: one record a batch, at once.
    """
    return {
        **DEFAULTS,
        **QUICK_CONNECTION,
        "linger.ms": TRANSACTION_LINGER_MS,
        "queue.buffering.max.messages": 4 * rows_max,
        **properties,
        **(_LONE_TRANSACTION if is_lone else {}),
        **GUARANTEES,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        # It has to have a limit here. When it passes the whole transaction is aborted: no queue loses its middle.
        "message.timeout.ms": timeout_ms,
    }


def transaction_timeout_ms(properties: Mapping[str, str]) -> int:
    """Return how long a transaction may be open, in milliseconds."""
    return int(properties.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS))


def silent(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the properties of a client that logs nothing, since others tell what is wrong with the brokers."""
    # Where `debug` is set the level has no say: all goes to standard error then, and of URLs the passwords too.
    return {**{name: value for name, value in properties.items() if name != "debug"}, "log_level": "0"}


def empty_key_partition(properties: Mapping[str, str]) -> int:
    """Return where records with an empty key go, which have an order like those of any other key.

    librdkafka's default takes an empty key for none, and a partition for each of its records at random. They go where
    its `consistent`, which differs in nothing else, places them; every other partitioner keeps them together itself.
    """
    return 0 if partitioner_of(properties) == DEFAULT_PARTITIONER else ANY_PARTITION


def partitioner_of(properties: Mapping[str, str]) -> str:
    """Return the name of the partitioner, as librdkafka spells it."""
    return properties.get("partitioner", DEFAULT_PARTITIONER).strip().lower()


def record_bytes_max(properties: Mapping[str, str]) -> int:
    """Return the client's limit of one record, in bytes."""
    return int(properties.get("message.max.bytes", CLIENT_RECORD_BYTES_MAX))
