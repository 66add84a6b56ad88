"""Deferrals: keys whose records were dropped from memory, each "from id X", and those wanted again. Pure state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from outboxd.policy.keys.wanted import Wanted
from outboxd.policy.rows.records import GateKey


@dataclass(frozen=True, slots=True)
class Reread:
    """A key whose deferred records are wanted again, from `from_id` on."""

    gate_key: GateKey
    from_id: int


class Deferrals:
    """`from_ids` maps a deferred key to the id from which on it is to be read again."""

    def __init__(self) -> None:
        """Start with nothing deferred."""
        self.from_ids: dict[GateKey, int] = {}
        self.wanted: Wanted[GateKey] = Wanted()

    def defer(self, gate_key: GateKey, record_id: int) -> None:
        """The record was dropped: its key is to be read again from there."""
        self.from_ids[gate_key] = min(record_id, self.from_ids.get(gate_key, record_id))

    def covers(self, gate_key: GateKey, record_id: int) -> bool:
        """Say whether the record will be read again with its key."""
        from_id = self.from_ids.get(gate_key)
        return from_id is not None and record_id >= from_id

    def answered(self, wish: Reread, complete_to: int | None) -> None:
        """The key was read again: in full, or up to this id."""
        self.wanted.discard(wish.gate_key)
        if complete_to is None:
            del self.from_ids[wish.gate_key]
        else:
            # A cut may come before what this key asked for: it stays as it was.
            self.from_ids[wish.gate_key] = max(complete_to + 1, wish.from_id)

    def rereads(self, keys_max: int, held_topics: Collection[str] = ()) -> list[Reread]:
        """Return the keys that are wanted now, oldest wish first, at most `keys_max`, none of a held topic."""
        chosen: list[Reread] = []
        for gate_key in self.wanted:
            if gate_key[0] in held_topics:
                continue
            if len(chosen) == keys_max:
                break
            chosen.append(Reread(gate_key, self.from_ids[gate_key]))
        return chosen
