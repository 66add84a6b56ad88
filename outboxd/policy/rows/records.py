"""The record: one committed row of the outbox, as the relay holds it in memory.

A record is a named tuple because five thousand of them are read at a time: the driver fills it without a line of
ours in between. Its fields stand in the order in which the fetch statement selects them.
"""

from __future__ import annotations

import enum
from operator import itemgetter
from typing import NamedTuple

FIRST_ID = -(2**63)
"""Where a walk over all ids begins: no id is below it."""
ID_MAX = 2**63 - 1
"""No id is above it."""

GateKey = tuple[str, str | None]
"""What order is kept by: (topic, key), or (topic, None) where a whole topic goes one record at a time."""


WITHHELD = ""
"""In the place of headers that were not shipped, since the client would refuse the record: no JSON text is empty."""


class Arm(enum.IntEnum):
    """Which part of the fetch statement a record came by; also the order in which a byte limit cuts the parts, last
    first.
    """

    META = 0
    LOOK_BACK = 1
    CHOSEN = 2
    REPLAY = 3
    REREAD = 4
    CATCH_UP = 5
    FORWARD = 6


class Record(NamedTuple):
    """One outbox record. `headers` is the JSON text as stored, or WITHHELD; `size_bytes` counts topic, key, payload and
    headers. Of a payload that the client would refuse only the beginning may be here, which it refuses too. `event_id`
    is empty where a row of somebody's own table has none.
    """

    arm: int
    id: int
    event_id: str
    topic: str
    key: str | None
    payload: bytes | None
    headers: str
    partition: int | None
    created_at_ms: int
    size_bytes: int


arm_of, id_of, topic_of, size_of = itemgetter(0), itemgetter(1), itemgetter(3), itemgetter(9)
"""Fields of a record for `map` and sorting: by position, which costs a third of what a name does."""


class FailureHistory(NamedTuple):
    """What is known of a record that failed before: counted attempts, which dead letter it is, if it is one, and since
    when, by the relay's clock, it has waited for another attempt or for somebody; None where it has not yet.
    """

    attempts: int
    dead_letter_id: int | None = None
    waits_since: float | None = None


NO_HISTORY = FailureHistory(0)
