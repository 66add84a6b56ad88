"""A dead letter's copy in Kafka: the record, with headers that tools for dead letters of the ecosystem read.

Kafka Connect's are text; Spring's partition is a big-endian integer of four bytes. A row of an outbox has no offset in
its topic, and a partition only where the row names one: what does not exist is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from outboxd.policy.blame.cause import plain
from outboxd.policy.rows.headers import Headers, InvalidHeaders, parse_headers

STAGE = "KAFKA_PRODUCE"
CLASS_NAME = "outboxd"
TOPIC_CHARS_MAX = 300
"""An illegal topic may be of any length."""


class DeadCopy(NamedTuple):
    """What is copied of a dead letter. `died_at` tells this death from a later one of the same dead letter."""

    id: int
    died_at: datetime
    outbox_id: int
    event_id: str
    topic: str
    key: str | None
    payload: bytes | None
    headers: str
    partition: int | None
    error_code: str
    error_message: str


class Sent(NamedTuple):
    """What became of copies: those that are in Kafka, and why others are not; empty where none was refused."""

    acknowledged: list[DeadCopy]
    failure: str


def copy_headers(
    letter: DeadCopy, source: str, loads: Callable[[str], Any], *, payload_left_out: bool = False
) -> Headers:
    """Return the headers of the copy: the application's own first, as far as they can be sent at all.

    Args:
        letter: the dead letter.
        source: the outbox's name.
        loads: parses JSON.
        payload_left_out: the payload and the application's headers are too large even for a copy, or kill who sends
            them.
    """
    parsed = () if payload_left_out else parse_headers(letter.headers, loads)
    own: Headers = () if isinstance(parsed, InvalidHeaders) else parsed
    topic = plain(letter.topic, TOPIC_CHARS_MAX)
    told: list[tuple[str, str | None]] = [
        ("__connect.errors.topic", topic),
        ("__connect.errors.partition", None if letter.partition is None else str(letter.partition)),
        ("__connect.errors.stage", STAGE),
        ("__connect.errors.class.name", CLASS_NAME),
        ("__connect.errors.exception.class.name", letter.error_code),
        ("__connect.errors.exception.message", letter.error_message),
        ("kafka_dlt-original-topic", topic),
        ("kafka_dlt-exception-fqcn", letter.error_code),
        ("kafka_dlt-exception-message", letter.error_message),
        ("outbox-id", str(letter.outbox_id)),
        ("outbox-event-id", letter.event_id),
        ("outbox-source", source),
        ("outbox-dead-letter-id", str(letter.id)),
        ("outbox-payload-left-out-bytes", str(len(letter.payload or b"")) if payload_left_out else None),
    ]
    added: Headers = tuple((name, value.encode(errors="replace")) for name, value in told if value is not None)
    if letter.partition is not None and -(2**31) <= letter.partition < 2**31:
        added += (("kafka_dlt-original-partition", struct.pack(">i", letter.partition)),)
    return (*own, *added)
