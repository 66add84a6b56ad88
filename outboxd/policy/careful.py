"""Care after an unclean end: what the owner before this one left behind, and how the present one begins.

    owner ends uncleanly ──▶ next one: small recorded batches ──again──▶ next one: what was recorded goes apart

See `docs/decisions/` for why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.rows.records import Record

WINDOW_ROWS: Final = 200
"""How many rows are recorded and in the air at once: few to be tried one by one, enough to lose little time."""
SUSPECTS_MAX: Final = 2_000
"""How many rows are suspected at most; a row that left the outbox meanwhile stays among them for nothing."""
STILL_SECONDS: Final = 0.5
"""What is not reported when nothing was for so long stands still: the next windows go beside it."""
STILL_ROWS_MAX: Final = 1_000
"""Beside how many rows without a report no further window goes: all of them are recorded, and tried one by one."""
CAREFUL_SECONDS: Final = 60.0
"""How long care lasts after the first report at most."""
GROUP_PARTS: Final = 15
"""In so many parts a group goes that a process died of: of two hundred rows one that kills is alone in the third group.
A death costs the start of a process, about a second, and a part some ten milliseconds.
"""
GROUP_BYTES_MAX: Final = 4 << 20
"""How much a group holds, unless it is one row: it goes through a pipe as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """How the owner before this one ended. Each ownership has an opening of its own, told apart by identity.

    Attributes:
        was_clean: it said so itself, or there was none.
        suspects: the ids that were recorded as in the air when it ended uncleanly.
    """

    was_clean: bool
    suspects: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class PlannedEnd(DeliveryFault):
    """The producer made way for a process of its own, which is through: no failure, and yet what was committed has to
    be read. `text` says so as a reason.
    """


def window(record_ids: Iterable[int], suspects: set[int]) -> list[int]:
    """Return the ids that go next, in their order: the first ones that are not suspected themselves."""
    chosen: list[int] = []
    for record_id in record_ids:
        if len(chosen) >= WINDOW_ROWS:
            break
        if record_id not in suspects:
            chosen.append(record_id)
    return chosen


def recorded(in_air_ids: Sequence[int], suspects: set[int]) -> list[int]:
    """Return what is recorded before a window goes: what will be in the air then, and the suspects that were not
    cleared yet.
    """
    room = SUSPECTS_MAX - len(in_air_ids)
    return sorted(suspects)[:room] + list(in_air_ids)


def groups(suspects: Sequence[Record]) -> list[Sequence[Record]]:
    """Return the suspects in the groups that a process apart sends: as large as they may be, since most ends are none
    of a row's doing, and a group costs little more than a row.
    """
    found: list[Sequence[Record]] = []
    start = size_bytes = 0
    for end, record in enumerate(suspects):
        if end > start and size_bytes + record.size_bytes > GROUP_BYTES_MAX:
            found.append(suspects[start:end])
            start, size_bytes = end, 0
        size_bytes += record.size_bytes
    return [*found, suspects[start:]] if suspects else found


def parted(group: Sequence[Record]) -> list[Sequence[Record]]:
    """Return what goes in its place where a process died of the group: one of its rows may be to blame, or none."""
    rows = -(-len(group) // GROUP_PARTS)
    return [group[start : start + rows] for start in range(0, len(group), rows)]
