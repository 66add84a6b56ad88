"""Answers: what a fetch's answer says by its order, and by where a limit cut it. Pure."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from outboxd.policy.rows.records import ID_MAX, Arm, GateKey, Record, arm_of, id_of, size_of
from outboxd.relay.ports import FetchRequest


@dataclass(slots=True)
class Refused:
    """Rereads and catch-ups whose answers cannot be used; they stay wanted."""

    gate_keys: set[GateKey | None] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)


class NotRead:
    """A part that a cut kept from being read at all."""


def completeness(
    ids: list[int], shown: list[Record], rows_max: int, arm: Arm, cut_arm: int | None, *, end_id: int | None = None
) -> int | NotRead | None:
    """Return up to where a part was read: None for in full, an id for no further than that one, or that it was not.

    Args:
        ids: the ids of those records of the part that one wish asked for.
        shown: all records of the part, as the database gave them.
        rows_max: how many records were asked for by one wish.
        arm: the part.
        cut_arm: the part in which a limit cut the answer.
        end_id: how far the wish was looked for, where that is not all.
    """
    if cut_arm is not None and cut_arm < arm:
        return NotRead()
    limits = [ids[-1]] if len(ids) >= rows_max else []
    if end_id is not None:
        limits.append(end_id)
    if cut_arm == arm:
        limits.append(shown[-1].id)
    # Nothing is behind the highest id.
    return min((limit for limit in limits if limit < ID_MAX), default=None)


def end_before_position(request: FetchRequest, from_id: int) -> int | None:
    """Return how far a topic was read from `from_id` on, None where it was up to the position."""
    end_id = request.end_of(from_id)
    return end_id if end_id < request.position else None


def cut_arm_of(records: list[Record], request: FetchRequest) -> int | None:
    """Return the part in which a limit cut the answer, None when nothing was; what stands behind was not read."""
    if not records:
        return None
    is_cut = len(records) >= request.rows_max or sum(map(size_of, records)) >= request.bytes_max
    return records[-1].arm if is_cut else None


def divide(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Divide an answer into its special parts and its forward part, which stands last."""
    if not records or records[0].arm == Arm.FORWARD:
        return [], records
    start = bisect.bisect_left(records, Arm.FORWARD, key=arm_of)
    return records[:start], records[start:]


def merge(special: list[Record], forward: list[Record]) -> list[Record]:
    """Return all records in id order, each once; the part that stands first in the answer wins."""
    if not special:
        return forward
    merged: dict[int, Record] = {}
    for record in special:
        merged.setdefault(record.id, record)
    for record in forward:
        merged.setdefault(record.id, record)
    return sorted(merged.values(), key=id_of)
