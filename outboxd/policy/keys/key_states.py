"""Key states: which keys are busy, held or read again, and what comes next of each. Pure state.

A key is busy while one of its records is with the producer, and *stopped* where none is and something else has to come
first: a held record whose turn it is, or the reread of what was deferred before it.
"""

from __future__ import annotations

import bisect
import enum
from typing import Final

from outboxd.policy.keys.deferrals import Deferrals
from outboxd.policy.keys.key_queues import KeyQueues
from outboxd.policy.rows.records import GateKey, Record


class Stop(enum.Enum):
    """What a key waits for of which nothing is with the producer. No number, since any number may be a record's id."""

    HELD = "held"
    REREADING = "rereading"


HELD: Final = Stop.HELD
REREADING: Final = Stop.REREADING


class KeyStates:
    """Holds one entry a key that is not free; nothing for the others.

    A busy key has a queue, with the record that is with the producer in front. A key that is neither busy nor free is
    `stopped`, HELD or REREADING. `held` lists the failed, unsettled ids of a key in ascending order.
    """

    def __init__(self) -> None:
        """Start with every key free."""
        self.queues = KeyQueues()
        self.held: dict[GateKey, list[int]] = {}
        self.stopped: dict[GateKey, Stop] = {}
        self.deferrals = Deferrals()
        self.dropped: list[Record] = []
        """What was deferred and is still to leave memory."""

    def owner_of(self, gate_key: GateKey) -> int | Stop | None:
        """Return the id of the key's record that is with the producer, HELD or REREADING where none is and the key is
        stopped, None where it is free.
        """
        owner = self.queues.owner_of(gate_key)
        return self.stopped.get(gate_key) if owner is None else owner

    def begin(self, gate_key: GateKey, record: Record) -> None:
        """The record goes to the producer: its key is busy."""
        self.stopped.pop(gate_key, None)
        self.queues.begin(gate_key, record, is_plain=self._is_plain(gate_key))

    def _is_plain(self, gate_key: GateKey) -> bool:
        return gate_key not in self.held and gate_key not in self.deferrals.from_ids

    def free(self, gate_key: GateKey) -> None:
        """Nothing of the key is with the producer any more: what comes first, a held record or a deferred one?"""
        from_id = self.deferrals.from_ids.get(gate_key)
        held = self.held.get(gate_key)
        if from_id is not None and (held is None or from_id <= held[0]):
            self._stop(gate_key, REREADING)
            self.deferrals.wanted.add(gate_key, gate_key[0])
            return
        self.deferrals.wanted.discard(gate_key)
        if held is not None:
            self._stop(gate_key, HELD)
        else:
            self.queues.end(gate_key)
            self.stopped.pop(gate_key, None)

    def _stop(self, gate_key: GateKey, why: Stop) -> None:
        self.queues.end(gate_key)
        self.stopped[gate_key] = why

    # Held records.

    def hold(self, gate_key: GateKey, record_id: int) -> None:
        """The record failed and stays unsettled: its key waits for it. What waited in memory is deferred."""
        self.queues.not_plain(gate_key)
        held = self.held.setdefault(gate_key, [])
        if record_id not in held:
            bisect.insort(held, record_id)
        self.defer_waiting(gate_key)
        owner = self.owner_of(gate_key)
        if owner is None or owner in (HELD, REREADING, record_id):
            self.free(gate_key)

    def hold_ended(self, gate_key: GateKey, record_id: int) -> None:
        """The held record goes again, or ended without that; the key may be held for others."""
        held = self.held[gate_key]
        held.remove(record_id)
        if not held:
            del self.held[gate_key]

    # Deferred records.

    def defer(self, gate_key: GateKey, record: Record) -> None:
        """The record is dropped: its key is to be read again from there."""
        if gate_key not in self.deferrals.from_ids:
            self.queues.not_plain(gate_key)
        self.deferrals.defer(gate_key, record.id)
        self.dropped.append(record)

    def defer_waiting(self, gate_key: GateKey) -> None:
        """Drop what waits in memory behind the record that is with the producer."""
        for record in self.queues.cut(gate_key):
            self.defer(gate_key, record)

    def limit_waiting(self, rows_max: int) -> None:
        """Drop what waits in memory behind so many records of its key."""
        for gate_key, record in self.queues.cut_beyond(rows_max):
            self.defer(gate_key, record)

    # Chains.

    def chain_ended(self, gate_key: GateKey) -> Record:
        """All of the key's chain was delivered: return its last record, which stands in front."""
        return self.queues.chain_ended(gate_key, is_plain=self._is_plain(gate_key))

    def cut_chains(self) -> list[Record]:
        """All chains end, wherever they are: return of each the first record that was not delivered, which goes by
        itself now; the others wait behind it, but for those that came to be deferred, or held, meanwhile.
        """
        return [self._cut_chain(gate_key) for gate_key in list(self.queues.chains.by_key)]

    def _cut_chain(self, gate_key: GateKey) -> Record:
        first = self.queues.chain_cut(gate_key, is_plain=self._is_plain(gate_key))
        from_id = first.id if gate_key in self.held else self.deferrals.from_ids.get(gate_key)
        if from_id is not None:
            # A late one was dropped while the chain went: it goes before what comes after it and is not delivered.
            for record in self.queues.cut_from(gate_key, from_id):
                self.defer(gate_key, record)
        return first
