"""Content: what a record says, as a digest that PostgreSQL reckons too.

Whoever takes a replay back while a broker is silent, mends the dead letter and replays it again has two records on
their way: the report of the first one says nothing of the second.
"""

from __future__ import annotations

from hashlib import sha256

from outboxd.policy.rows.records import Record

PIECE_DIGITS = 16


def content_digest(record: Record) -> str:
    """Return the digest of what people can change in a dead letter: the same as `content_text` gives in SQL."""
    partition = None if record.partition is None else str(record.partition).encode()
    key = None if record.key is None else record.key.encode()
    parts = (record.topic.encode(), key, record.headers.encode(), partition, record.payload)
    return sha256(b"".join(b"\0" if part is None else sha256(part).digest() for part in parts)).hexdigest()


def content_piece(record: Record) -> str:
    """Return the beginning of the digest: enough to tell what was sent from what somebody made of it."""
    return content_digest(record)[:PIECE_DIGITS]
