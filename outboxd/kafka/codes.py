"""Groups of the client's error codes that several look for. What a code means for a row is in `policy.faults`."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

FORBIDDEN: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
"""The user lacks a right to write to, describe or make a topic."""
NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
"""There is no such topic, or the user may not see it."""
