"""Names in SQL: the schema is configurable, so it is quoted wherever it stands."""

from __future__ import annotations

# The whole name of a channel must fit PostgreSQL's identifiers: 63 bytes with the prefix.
CHANNEL_PREFIX = "outboxd_"


def quoted(identifier: str) -> str:
    """The identifier as SQL takes it, whatever is in it: `Out"box` becomes `"Out""box"`.

    Raises:
        ValueError: it is empty or has a NUL, which PostgreSQL allows in no name.
    """
    if not identifier or "\0" in identifier:
        raise ValueError(f"not a name that PostgreSQL can have: {identifier!r}")
    return '"' + identifier.replace('"', '""') + '"'


def wakeup_channel(outbox: str) -> str:
    """The channel on which the insert trigger wakes the relay of this outbox."""
    return CHANNEL_PREFIX + outbox
