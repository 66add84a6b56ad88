"""What several make of the client's errors: groups of codes, and why a question had no answer. What a code means for a
row is in `policy.faults`.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

FORBIDDEN: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
"""The user lacks a right to write to, describe or make a topic."""
NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
"""There is no such topic, or the user may not see it."""


def in_words(error: KafkaError) -> str:
    """Return what people are told of the client's error: as text it is one of Python's own."""
    return f"{error.name()}: {error.str()}"


def why_unread(topic: str, error: KafkaError) -> str:
    """Return why a topic of one partition, which the cluster lists, is not read, with the remedy: where nobody leads
    its partition the client calls that unknown, as if it were not there.
    """
    why = in_words(error)
    if error.code() in FORBIDDEN:
        why = f"{why}; allow READ, WRITE and DESCRIBE on it"
    elif error.code() == KafkaError._UNKNOWN_PARTITION:
        why = f"its partition has no leader; start the brokers that have its replicas ({why})"
    return f"{topic} cannot be read: {why}"


def why_unanswered(error: KafkaException | TimeoutError) -> str:
    """Return why the brokers did not answer a question, in the client's words where it has any."""
    return str(error.args[0].str()) if isinstance(error, KafkaException) else "no answer in time"
