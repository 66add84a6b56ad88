"""Key rereads: what was deferred of a key is read again, before anything newer of it goes. Pure state.

wanted ──asked for──▶ answered in full, and admitted ──▶ the key goes on
   ▲                    │ cut, or of no use since the key was held or deferred from a lower id meanwhile
   └────────────────────┘
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from collections.abc import Set as AbstractSet

from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.keys.key_states import HELD, REREADING, KeyStates
from outboxd.policy.rows.records import GateKey


class KeyRereads:
    """The key gate's side towards whoever reads the database."""

    def __init__(self, keys: KeyStates) -> None:
        """`keys` are the gate's."""
        self._keys = keys

    def are_wanted(self, held_topics: AbstractSet[str]) -> bool:
        """Say whether any key waits to be read again that is of no held topic."""
        return self._keys.deferrals.wanted.are_open(held_topics)

    def wanted(self, keys_max: int, held_topics: Collection[str] = ()) -> list[Reread]:
        """Return keys whose deferred records are wanted now, at most `keys_max`, none of a held topic."""
        return self._keys.deferrals.rereads(keys_max, held_topics)

    def answered(self, wish: Reread, complete_to: int | None) -> bool:
        """Take the answer of a reread; its records are given to the gate's `admit` next, then `settle` is called.

        `complete_to` is None when the answer showed all of the key below the position, else the last id that it showed.
        Returns False when the answer is not usable, since the key was held or deferred from a lower id meanwhile: its
        records are dropped, and come again.
        """
        gate_key, keys = wish.gate_key, self._keys
        if keys.stopped.get(gate_key) != REREADING or keys.deferrals.from_ids.get(gate_key) != wish.from_id:
            return False
        keys.deferrals.answered(wish, complete_to)
        if gate_key in keys.held:
            keys.stopped[gate_key] = HELD
        else:
            del keys.stopped[gate_key]
        return True

    def settle(self, wishes: Iterable[Reread]) -> None:
        """After the gate's `admit` of rereads: a key that is still deferred, and of which nothing went, wants to be
        read again at once.
        """
        for wish in wishes:
            owner = self._keys.owner_of(wish.gate_key)
            if owner is None or owner is HELD:
                self._keys.free(wish.gate_key)

    def nothing_left(self, topic: str, from_id: int, shown: Container[GateKey | None]) -> None:
        """A read of all that is pending in the topic from `from_id` on showed records of the keys in `shown` only:
        nothing of the others that were to be read again is there any more.
        """
        gone = [
            Reread(gate_key, first_id)
            for gate_key, first_id in self._keys.deferrals.from_ids.items()
            if gate_key[0] == topic and first_id >= from_id and gate_key not in shown
        ]
        self.settle([wish for wish in gone if self.answered(wish, None)])
