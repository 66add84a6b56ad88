"""Names in SQL: the schema is configurable, so it is quoted wherever it stands."""

from __future__ import annotations

import hashlib

CHANNEL_PREFIX = "outboxd_"
CHANNEL_BYTES_MAX = 63


def quoted(identifier: str) -> str:
    """The identifier as SQL takes it, whatever is in it: `Out"box` becomes `"Out""box"`.

    Raises:
        ValueError: it is empty or has a NUL, which PostgreSQL allows in no name.
    """
    if not identifier or "\0" in identifier:
        raise ValueError(f"not a name that PostgreSQL can have: {identifier!r}")
    return '"' + identifier.replace('"', '""') + '"'


def quoted_beside_parameters(identifier: str) -> str:
    """`quoted` for a statement that psycopg is given with parameters, where a percent sign would begin one."""
    return quoted(identifier).replace("%", "%%")


def wakeup_channel(outbox: str) -> str:
    """The channel on which the insert trigger wakes the relay of this outbox.

    PostgreSQL refuses longer channels, and the refusal would fail the application's insert: a long name goes by its
    hash. The SQL function of the same name says the same.
    """
    channel = CHANNEL_PREFIX + outbox
    if len(channel.encode()) <= CHANNEL_BYTES_MAX:
        return channel
    return CHANNEL_PREFIX + hashlib.sha256(outbox.encode()).hexdigest()[:40]
