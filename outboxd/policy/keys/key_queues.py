"""Key queues: of each busy key the record that is with the producer, and behind it those that wait. Pure state.

A queue is found by its key. While nothing of the key is held or deferred it is *plain*, and found by the id of the
record in front too: what was delivered then lets the next one go without a look at its key. Where many records of the
key went as a chain the last one of them stands in front, and no id finds the queue.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Container

from outboxd.policy.keys.key_chains import KeyChains
from outboxd.policy.rows.records import GateKey, Record, id_of


class KeyQueues:
    """Invariant: `by_id` holds the plain queues of `by_key`, each under the id of its first record. No queue is empty.

    The two are open to the key gate, which works on thousands of records in one loop.
    """

    def __init__(self) -> None:
        """Start with no key busy."""
        self.by_key: dict[GateKey, list[Record]] = {}
        self.by_id: dict[int, list[Record]] = {}
        self.chains = KeyChains()

    def __contains__(self, gate_key: GateKey) -> bool:
        """Say whether a record of the key is with the producer."""
        return gate_key in self.by_key

    @property
    def rows(self) -> int:
        """How many records are with the producer or wait, of all busy keys; each of them is asked."""
        # The last one of a chain stands in front of its queue, too.
        chained = len(self.chains.by_id) - len(self.chains.by_key)
        return sum(map(len, self.by_key.values())) + chained

    def owner_of(self, gate_key: GateKey) -> int | None:
        """Return the id of the key's record that is with the producer."""
        queue = self.by_key.get(gate_key)
        return None if queue is None else queue[0].id

    def begin(self, gate_key: GateKey, record: Record, *, is_plain: bool) -> None:
        """The record goes to the producer; nothing of its key is there."""
        queue = self.by_key[gate_key] = [record]
        if is_plain:
            self.by_id[record.id] = queue

    def not_plain(self, gate_key: GateKey) -> None:
        """Something of the key was held or deferred: whoever lets a record of it go has to look at the key."""
        queue = self.by_key.get(gate_key)
        if queue is not None:
            self.by_id.pop(queue[0].id, None)

    def end(self, gate_key: GateKey) -> None:
        """Nothing of the key is with the producer any more, nor waits for that."""
        queue = self.by_key.pop(gate_key, None)
        if queue is not None:
            self.by_id.pop(queue[0].id, None)

    def wait(self, gate_key: GateKey, record: Record, rows_max: int) -> Record | None:
        """Let the record wait; a late one goes before what waits already. Return the last one where these are more
        than `rows_max` now: it is taken out.
        """
        queue = self.by_key[gate_key]
        # What is with the producer stays in front.
        bisect.insort(queue, record, lo=1, key=id_of)
        return queue.pop() if len(queue) > 1 + rows_max else None

    def proceed(self, gate_key: GateKey) -> Record | None:
        """The record in front left: return the next one, which is with the producer now, or None where none waits
        and all stays as it is.
        """
        queue = self.by_key[gate_key]
        if len(queue) == 1:
            return None
        is_plain = self.by_id.pop(queue[0].id, None) is not None
        del queue[0]
        if is_plain:
            self.by_id[queue[0].id] = queue
        return queue[0]

    def cut(self, gate_key: GateKey) -> list[Record]:
        """Return what waits behind the record that is with the producer; it waits no more."""
        return self._cut_at(gate_key, 1)

    def cut_from(self, gate_key: GateKey, record_id: int) -> list[Record]:
        """Return what waits with this id or a higher one; it waits no more."""
        return self._cut_at(gate_key, bisect.bisect_left(self.by_key[gate_key], record_id, lo=1, key=id_of))

    def _cut_at(self, gate_key: GateKey, place: int) -> list[Record]:
        """Return what waits from this place of the queue on; it waits no more. At 0 is what is with the producer."""
        queue = self.by_key.get(gate_key, [])
        waiting = queue[place:]
        del queue[place:]
        return waiting

    def cut_beyond(self, rows_max: int) -> list[tuple[GateKey, Record]]:
        """Return what waits behind so many records of its key that wait too; it waits no more."""
        long = [gate_key for gate_key, queue in self.by_key.items() if len(queue) > 1 + rows_max]
        return [(gate_key, record) for gate_key in long for record in self._cut_at(gate_key, 1 + rows_max)]

    # Chains.

    def chain_begins(self, gate_key: GateKey, rows: int) -> None:
        """So many records of the key go together: the one in front of its queue, and those that wait behind it."""
        queue = self.by_key[gate_key]
        self.by_id.pop(queue[0].id, None)
        self.chains.begin(gate_key, queue[:rows])
        del queue[: rows - 1]

    def chain_ended(self, gate_key: GateKey, *, is_plain: bool) -> Record:
        """All of the key's chain was delivered: return its last record, which is in front as if it went by itself."""
        queue = self.by_key[gate_key]
        if is_plain:
            self.by_id[queue[0].id] = queue
        return queue[0]

    def chain_cut(self, gate_key: GateKey, *, is_plain: bool) -> Record:
        """The key's chain ends before its end: return the first record that was not delivered. It is in front, to go by
        itself, and the others of the chain wait behind it, in order with what came late.
        """
        queue = self.by_key[gate_key]
        first, *others = self.chains.cut(gate_key)
        # What waits is in order, so that a late one finds its place.
        queue[:] = [first, *sorted(others + queue[1:], key=id_of)]
        return self.chain_ended(gate_key, is_plain=is_plain)

    def keys_of(self, topics: Collection[str]) -> list[GateKey]:
        """Return the busy keys of these topics."""
        return [gate_key for gate_key in self.by_key if gate_key[0] in topics]

    def keys_behind(self, topic: str, record_ids: Container[int]) -> list[GateKey]:
        """Return the keys of the topic that wait behind one of these records."""
        return [
            gate_key
            for gate_key, queue in self.by_key.items()
            if gate_key[0] == topic and len(queue) > 1 and queue[0].id in record_ids
        ]

    def waiting_ids(self) -> set[int]:
        """Return the ids of all records that wait."""
        return {record.id for queue in self.by_key.values() for record in queue[1:]}
