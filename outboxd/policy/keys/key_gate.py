"""The key gate: which records may go now, so that each key keeps its order. Pure state; no clock, no I/O.

A key is *busy* while one of its records is with the producer; its later records *wait* in memory, up to a limit,
and beyond it are *deferred*: dropped, and remembered as "deferred from id X". A key is *held* while a failed record
of it is unsettled (due later, behind a breaker, or dead on a route with `hold-key`): nothing newer of it goes, and
what waited is deferred, since it may take long.

    free ──admit──▶ busy ──delivered──▶ next waiting record, else reread of what was deferred, else free
                     │ failed
                     ▼
                    held ──its record is admitted again──▶ busy

Of a key of which many records wait these may go together, see `chained`.

Invariants: at most one record a key is busy, or one chain (unless the gate is pipelined, where a transaction keeps the
order); a record with a lower id than the held one may pass it, a higher one never; a deferred key is read again, by
index, before anything newer of it goes, a held record of it included.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from itertools import chain
from typing import Final

from outboxd.policy.keys.chained_keys import ChainedKeys
from outboxd.policy.keys.key_rereads import KeyRereads
from outboxd.policy.keys.key_states import HELD, KeyStates
from outboxd.policy.rows.records import GateKey, Record

WAITING_PER_KEY_MAX: Final = 256
"""So many records of a key wait in memory where they go one at a time."""


class KeyGate:
    """Lets records go by the states of their `keys`; what was deferred is asked for, and answered, by `rereads`."""

    def __init__(self, *, waiting_per_key_max: int = WAITING_PER_KEY_MAX, pipelined: bool = False) -> None:
        """`pipelined` lets many records of a key go at once, for a producer that keeps their order all or nothing."""
        self.waiting_per_key_max = waiting_per_key_max
        self.serial_topics: set[str] = set()
        self.pipelined = pipelined
        self.holds = 0
        """How often a key was held, or an admitted record put behind: what was admitted before the last time may stand
        behind that one by now.
        """
        self.keys = KeyStates()
        self.rereads = KeyRereads(self.keys)
        self.chained = ChainedKeys(self.keys)
        self.held = self.keys.held
        """The failed, unsettled ids of each held key, in ascending order."""
        self._queues = self.keys.queues
        self._deferrals = self.keys.deferrals

    # What goes.

    def key_of(self, record: Record) -> GateKey | None:
        """Return what the record's order is kept by, or None where it has no order."""
        return self.key_for(record.topic, record.key)

    def key_for(self, topic: str, key: str | None) -> GateKey | None:
        """Return what the order of (topic, key) is kept by: the whole topic where it goes one record at a time."""
        if topic in self.serial_topics:
            return (topic, None)
        return None if key is None else (topic, key)

    def admit(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that may go now, in order; the others wait, or leave memory by `take_dropped`.

        `records` are in id order, from one snapshot, and none of them is in memory already.
        """
        if self.pipelined or self.serial_topics:
            return [record for record in records if self._admit_one(record)]
        admitted: list[Record] = []
        append = admitted.append
        queues, by_id = self._queues.by_key, self._queues.by_id
        held, deferred = self.held, self._deferrals.from_ids
        queue_rows_max = self.waiting_per_key_max
        for record in records:
            key = record[4]
            if key is None:
                append(record)
                continue
            gate_key = (record[3], key)
            if (deferred and gate_key in deferred) or (held and gate_key in held):
                if self._admit_one(record):
                    append(record)
                continue
            # A key that is neither deferred nor held is not stopped: this is `_admit_one` without its cases, since most
            # records of a backlog come here.
            queue = queues.get(gate_key)
            if queue is None:
                queues[gate_key] = by_id[record[1]] = [record]
                append(record)
            elif len(queue) <= queue_rows_max and queue[-1][1] < record[1]:
                queue.append(record)
            else:
                self._wait(gate_key, record)
        return admitted

    def _admit_one(self, record: Record) -> bool:
        gate_key = self.key_of(record)
        if gate_key is None:
            return True
        owner = self.keys.owner_of(gate_key)
        if owner is None and self._deferrals.covers(gate_key, record.id):
            # A reread was cut before it showed all of the key: what comes by another way is not its next record.
            self.keys.defer(gate_key, record)
            return False
        if owner is None:
            if not self.pipelined:
                self.keys.begin(gate_key, record)
            return True
        if owner is HELD and self._goes_before_held(gate_key, record.id):
            self._admit_held(gate_key, record)
            return True
        self._wait(gate_key, record)
        return False

    def _goes_before_held(self, gate_key: GateKey, record_id: int) -> bool:
        """Say whether it is the held record itself, or a late one before it that no unfinished reread will show."""
        first = self.held[gate_key][0]
        return record_id == first or (record_id < first and not self._deferrals.covers(gate_key, record_id))

    def is_behind(self, record: Record) -> bool:
        """Say whether an admitted record may not go any more, since an earlier one of its key came to be held."""
        gate_key = self.key_of(record)
        owner = None if gate_key is None else self.keys.owner_of(gate_key)
        if gate_key is None or owner is None:
            return False
        return not (owner is HELD and record.id <= self.held[gate_key][0])

    def put_behind(self, record: Record) -> None:
        """An admitted record `is_behind`: its key is read again from there, and what was admitted of it after that has
        to come back too.
        """
        self.holds += 1
        self.admit([record])

    def _admit_held(self, gate_key: GateKey, record: Record) -> None:
        if record.id in self.held[gate_key]:
            self.keys.hold_ended(gate_key, record.id)
        if not self.pipelined:
            self.keys.begin(gate_key, record)
        else:
            # What was deferred between this one and the next held one goes before that.
            self.keys.free(gate_key)

    def _wait(self, gate_key: GateKey, record: Record) -> None:
        if gate_key not in self._queues or gate_key in self.held or self._deferrals.covers(gate_key, record.id):
            self.keys.defer(gate_key, record)
            return
        last = self._queues.wait(gate_key, record, self.waiting_per_key_max)
        if last is not None:
            self.keys.defer(gate_key, last)

    # What becomes of a record that went.

    def release(self, gate_key: GateKey, record_id: int) -> Record | None:
        """The record left the order (delivered, or dead and not holding): return the key's next record, now busy,
        if it waits.
        """
        held = self.held.get(gate_key)
        if held is not None and record_id in held:
            # A held record can end without being sent again: discarded, or vanished from the table.
            self.keys.hold_ended(gate_key, record_id)
            if self.keys.owner_of(gate_key) is HELD:
                self.keys.free(gate_key)
            return None
        if self._queues.owner_of(gate_key) != record_id:
            return None
        following = self._queues.proceed(gate_key)
        if following is None:
            self.keys.free(gate_key)
        return following

    def release_all(self, records: Sequence[Record]) -> list[Record]:
        """These records were delivered: return the records of their keys that go next, now busy."""
        following: list[Record] = []
        if self.chained.are_open:
            records, lasts = self.chained.delivered(records)
            following = self._release_each(lasts)
        if self.pipelined or self.serial_topics:
            if self.pipelined and not self.keys.stopped:
                return []
            return following + self._release_each(records)
        append = following.append
        queues, by_id = self._queues.by_key, self._queues.by_id
        take_queue = by_id.pop
        for record in records:
            queue = take_queue(record[1], None)
            if queue is None:
                key = record[4]
                successor = None if key is None else self.release((record[3], key), record[1])
                if successor is not None:
                    append(successor)
                continue
            # `release` without its cases, since most records of a backlog come here.
            if len(queue) == 1:
                del queues[record[3], record[4]]
                continue
            del queue[0]
            first = queue[0]
            by_id[first[1]] = queue
            append(first)
        return following

    def _release_each(self, records: Sequence[Record]) -> list[Record]:
        keyed = [(self.key_of(record), record[1]) for record in records]
        successors = [self.release(gate_key, record_id) for gate_key, record_id in keyed if gate_key is not None]
        return [successor for successor in successors if successor is not None]

    def topics(self) -> set[str]:
        """Return the topics of the keys that are not free."""
        keys = self.keys
        return {gate_key[0] for gate_key in chain(self._queues.by_key, keys.stopped, keys.held, self.deferred_keys)}

    def waiting_ids(self) -> set[int]:
        """Return the ids of the records that wait in memory."""
        return self._queues.waiting_ids()

    def hold(self, gate_key: GateKey, record_id: int) -> None:
        """The record failed and stays unsettled: its key waits for it. What waited in memory is deferred."""
        self.holds += 1
        self.keys.hold(gate_key, record_id)

    def take_turn(self, record: Record, read_from: int, *, past_held: bool = False) -> bool:
        """Let a probe go out of turn, where it is the lowest of its key in what was read from `read_from` on.

        Return whether it may: not while something of its key is with the producer, nor where a lower one is held or
        deferred from below what was read. `past_held`: nothing that is held or deferred below it is of its key, which
        the caller knows, in a topic that goes one record at a time.
        """
        gate_key = self.key_of(record)
        if gate_key is None:
            return True
        held = self.held.get(gate_key)
        if gate_key in self._queues:
            return False
        if not past_held and self._deferrals.from_ids.get(gate_key, read_from) < read_from:
            return False
        if held is not None and held[0] < record.id and not past_held:
            return False
        if held is not None:
            self._admit_held(gate_key, record)
        elif not self.pipelined:
            self.keys.begin(gate_key, record)
        return True

    def is_turn_of(self, gate_key: GateKey, record_id: int) -> bool:
        """Say whether a held record may go now: it is the first of its key, and nothing of the key is with the
        producer.
        """
        held = self.held.get(gate_key)
        return held is not None and held[0] == record_id and self.keys.stopped.get(gate_key) is HELD

    def is_busy(self, gate_key: GateKey) -> bool:
        """Say whether a record of the key is with the producer."""
        return gate_key in self._queues

    def is_deferred(self, gate_key: GateKey, record_id: int) -> bool:
        """Say whether the record is covered by a deferral of its key, so that it will be read again."""
        return self._deferrals.covers(gate_key, record_id)

    def defer_waiting(self, topics: Collection[str]) -> None:
        """Drop the records of these topics that wait in memory: their topic is held, and that may take long."""
        for gate_key in self._queues.keys_of(topics):
            self.keys.defer_waiting(gate_key)

    def defer_behind(self, topic: str, record_ids: Container[int]) -> bool:
        """Drop what waits in memory behind these records of the topic, which are stuck with the producer; what comes
        later of their keys is dropped too, until they are through. Return whether anything was dropped.
        """
        gate_keys = self._queues.keys_behind(topic, record_ids)
        for gate_key in gate_keys:
            self.keys.defer_waiting(gate_key)
        return bool(gate_keys)

    def limit_waiting(self, rows_max: int) -> None:
        """Let so many records of a key wait in memory from now on, and drop those beyond."""
        self.keys.limit_waiting(rows_max)
        self.waiting_per_key_max = rows_max

    def take_dropped(self) -> list[Record]:
        """Return the records that were deferred since the last call: they are to leave memory."""
        dropped, self.keys.dropped = self.keys.dropped, []
        return dropped

    @property
    def deferred_keys(self) -> dict[GateKey, int]:
        """The deferred keys, each with the id from which on it is to be read again."""
        return self._deferrals.from_ids
