"""What can be known of a row before it is sent: a legal topic name, its size on the wire, a timestamp that Kafka takes.

A poison row that is found here never reaches a batch that it would spoil for others.
"""

from __future__ import annotations

import re
from typing import Final

from outboxd.policy.rows.headers import Headers

TOPIC_CHARS_MAX: Final = 249
TIMESTAMP_MS_MAX: Final = 2**63 - 1
BATCH_OVERHEAD_BYTES: Final = 61
"""The head of a record batch of format v2 (KIP-98): from baseOffset to the count of records."""
CLIENT_OVERHEAD_BYTES: Final = 36
"""What librdkafka 2.16 adds to key, payload and headers before it compares with `message.max.bytes` (measured)."""

_ILLEGAL_IN_TOPIC: Final = re.compile(r"[^a-zA-Z0-9._-]")


def topic_name_problem(topic: str) -> str | None:
    """Return why Kafka would refuse this topic name, or None when it is legal (Kafka's `Topic.validate`)."""
    if not topic:
        return "the topic is empty"
    if len(topic) > TOPIC_CHARS_MAX:
        return f"the topic's name has {len(topic)} characters; Kafka allows {TOPIC_CHARS_MAX}"
    if topic in {".", ".."}:
        return f"{topic!r} is not allowed as a topic"
    illegal = _ILLEGAL_IN_TOPIC.search(topic)
    if illegal:
        return f"the topic {topic!r} has {illegal.group()!r}; Kafka allows letters, digits, dot, underscore and hyphen"
    return None


def partition_problem(partition: int | None) -> str | None:
    """Return why no topic can have this partition, or None. The client takes -1 for "any" and waits on other negatives.

    Whether the topic does have it, only its metadata can tell.
    """
    if partition is not None and partition < 0:
        return f"the partition is {partition}; partitions count from 0, and null lets the key decide"
    return None


def record_size_bytes(key: bytes | str | None, payload: bytes | None, headers: Headers) -> int:
    """Return the size of the record, uncompressed, as the only one of its batch and without the batch's head.

    Record format v2 (KIP-98, "Message Format"): varint length; attributes, timestamp delta and offset delta of one
    byte each; key, value and headers each behind a varint of its length or count, -1 for null. A text key counts in
    UTF-8.
    """
    body_bytes = 3 + _field_bytes(_length(key)) + _field_bytes(_length(payload))
    body_bytes += _varint_bytes(len(headers)) + _headers_bytes(headers)
    return _varint_bytes(body_bytes) + body_bytes


def lone_batch_size_bytes(key: bytes | str | None, payload: bytes | None, headers: Headers) -> int:
    """Return the size of a batch with this record alone, uncompressed: which a topic's `max.message.bytes` limits.

    A broker compares the compressed batch: with compression on, a number above the topic's limit proves nothing.
    """
    return BATCH_OVERHEAD_BYTES + record_size_bytes(key, payload, headers)


def client_size_bytes(key: bytes | str | None, payload: bytes | None, headers: Headers) -> int:
    """Return the size that the client holds against its `message.max.bytes`, uncompressed; equal is accepted."""
    return CLIENT_OVERHEAD_BYTES + max(_length(key), 0) + max(_length(payload), 0) + _headers_bytes(headers)


def timestamp_problem(created_at_ms: int) -> str | None:
    """Return why this time (ms since 1970, UTC) cannot be a record's timestamp, or None. The future is no problem."""
    if created_at_ms < 0:
        return "created_at is before 1970, which Kafka's timestamps cannot express"
    if created_at_ms > TIMESTAMP_MS_MAX:
        return "created_at is beyond what Kafka's timestamps can express"
    return None


def _length(part: bytes | str | None) -> int:
    """Bytes of a nullable part; -1 for null, as the format writes it."""
    if part is None:
        return -1
    if isinstance(part, bytes) or part.isascii():
        return len(part)
    # A lone surrogate is another check's finding; here it only must not fail.
    return len(part.encode("utf-8", "surrogatepass"))


def _field_bytes(length: int) -> int:
    return _varint_bytes(length) + max(length, 0)


def _headers_bytes(headers: Headers) -> int:
    return sum(_field_bytes(_length(name)) + _field_bytes(_length(value)) for name, value in headers)


def _varint_bytes(number: int) -> int:
    """Bytes of a zigzag varint, seven bits a byte; -1 and the numbers from 0 occur."""
    zigzag = 2 * number if number >= 0 else -2 * number - 1
    return max(1, -(-zigzag.bit_length() // 7))
