"""Letters: the dead letters that hold their keys. They stand apart from what else is held, known by id *and* key:
a row may come that was given the id of one (see docs/decisions/0030), and goes where its own key is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import GateKey
from outboxd.relay.memory.held_record import HeldRecord


class Letters:
    """All of them, by the ids that their rows had and by what each holds."""

    def __init__(self, gate: KeyGate) -> None:
        """`gate` keeps what is newer of their keys from going."""
        self._gate = gate
        self._by_id: dict[int, dict[GateKey, HeldRecord]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[HeldRecord]:
        return chain.from_iterable(letters.values() for letters in self._by_id.values())

    @property
    def ids(self) -> Iterable[int]:
        """The ids that their rows had."""
        return self._by_id.keys()

    def add(self, letter: HeldRecord) -> None:
        """The letter holds its key; without one there is nothing to hold."""
        if letter.gate_key is None:
            return
        self.remove(letter)
        self._by_id.setdefault(letter.id, {})[letter.gate_key] = letter
        self._count += 1
        self._gate.hold(letter.gate_key, letter.id)

    def remove(self, letter: HeldRecord) -> None:
        """It is replayed, discarded or was given another key. The caller tells the gate."""
        letters = self._by_id.get(letter.id)
        if letters is None or letter.gate_key is None or letters.pop(letter.gate_key, None) is None:
            return
        self._count -= 1
        if not letters:
            del self._by_id[letter.id]

    def find(self, record_id: int, gate_key: GateKey | None) -> HeldRecord | None:
        """Return the letter of this id that holds this key."""
        letters = self._by_id.get(record_id)
        return None if letters is None or gate_key is None else letters.get(gate_key)

    def has_place_of(self, record_id: int, topic: str, key: str | None) -> bool:
        """Say whether a letter of a record's key has its id: to the gate the record would be that letter."""
        return record_id in self._by_id and self.find(record_id, self._gate.key_for(topic, key)) is not None

    def of(self, record_id: int, dead_letter_id: int) -> list[HeldRecord]:
        """Return what is known of a dead letter, whatever key it holds. Of one that died a moment ago only the row's id
        is known.
        """
        letters = self._by_id.get(record_id, {}).values()
        return [letter for letter in letters if letter.history.dead_letter_id in (None, dead_letter_id)]

    def between(self, after: int, to: int | None) -> list[HeldRecord]:
        """Return those of the ids above `after`, up to `to` or to the end."""
        ids = sorted(record_id for record_id in self._by_id if record_id > after and (to is None or record_id <= to))
        return [letter for record_id in ids for letter in self._by_id[record_id].values()]
