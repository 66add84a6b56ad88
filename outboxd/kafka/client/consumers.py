"""What a consumer takes of the user's properties, which are a producer's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError

_PRODUCERS_ONLY: Final = (
    "acks", "batch.", "compression.", "delivery.", "enable.gapless", "enable.idempotence", "linger", "max.in.flight",
    "message.", "partitioner", "produce.", "queue.buffering.", "queuing.", "request.required", "request.timeout",
    "retries", "retry.backoff", "sticky.", "transaction",
)  # fmt: skip
"""How the names begin of what only a producer has; a consumer would warn of each."""


def without_producers_own(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the properties without those that only a producer has."""
    return {name: value for name, value in properties.items() if not name.startswith(_PRODUCERS_ONLY)}


def is_groups_alone(error: KafkaError) -> bool:
    """Say whether the error is on the consumer's group and on nothing that is read.

    The client asks for the group's coordinator though none is joined, and a broker may refuse that before it has
    answered what was asked of the topic.
    """
    code: int = error.code()
    return code == KafkaError.GROUP_AUTHORIZATION_FAILED
