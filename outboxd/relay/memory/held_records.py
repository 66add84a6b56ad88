"""Held records: failed and unsettled ones that left memory, and how each comes back.

    scheduled ──due──▶ wanted ──chosen for the next fetch──▶ asked ──read──▶ admitted (leaves this list)
    parked (behind a breaker) ──probe, or the breaker closed──▶ wanted
    replaying (a dead letter that an operator sends again) = wanted, read from the dead-letter table
    dead (holds its key) ──replayed──▶ wanted        ──discarded──▶ leaves this list

Only ids, keys and counts are kept here: the record itself is read again when its turn has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from outboxd.policy.fetch.limits import REPLAYS_MAX
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.keys.wanted import Wanted
from outboxd.policy.rows.records import Record
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.letters import Letters

SCANNED_MAX = 2_000
"""How many wanted records one look for the next fetch goes through."""


class HeldRecords:
    """All held records, by id; the dead ones are `letters`, and are read by nobody until they are replayed."""

    def __init__(self, gate: KeyGate) -> None:
        """`gate` says whose turn it is within a key."""
        self._gate = gate
        self.by_id: dict[int, HeldRecord] = {}
        self.letters = Letters(gate)
        self._wanted: Wanted[int] = Wanted()
        self._asked: list[int] = []
        self._parked: dict[str, dict[int, None]] = {}
        self._parking_topics: set[str] = set()
        self._later: dict[int, float] = {}
        self._replays: set[int] = set()

    def __contains__(self, record_id: object) -> bool:
        return record_id in self.by_id

    def __len__(self) -> int:
        return len(self.by_id) + len(self.letters)

    def has_other_key(self, record: Record) -> bool:
        """Say whether somebody gave the record another key while it was held: what was held is gone then."""
        held = self.by_id.get(record.id)
        return held is not None and held.gate_key is not None and self._gate.key_of(record) != held.gate_key

    def add(self, held: HeldRecord) -> None:
        """Take a record that left memory; its key waits for it."""
        if held.state is HeldState.DEAD:
            self.letters.add(held)
            return
        self.remove(held.id)
        self.by_id[held.id] = held
        if held.is_replay:
            self._replays.add(held.id)
        if held.gate_key is not None:
            self._gate.hold(held.gate_key, held.id)
        if held.state in (HeldState.WANTED, HeldState.PARKED):
            self._place(held)
        elif held.state is HeldState.SCHEDULED and held.is_replay:
            self._later[held.id] = held.due_at

    def want_due(self, now: float) -> None:
        """Replays that failed and are due are wanted again; records of `retry` are listed by the database instead."""
        for record_id in [record_id for record_id, due_at in self._later.items() if due_at <= now]:
            self.want(record_id)

    def want_overdue(self, now: float) -> None:
        """What is due by the relay's own clock is wanted, though the database does not list it: its clock was set."""
        overdue = [h.id for h in self.by_id.values() if h.state is HeldState.SCHEDULED and h.due_at <= now]
        for record_id in overdue:
            self.want(record_id)

    def _place(self, held: HeldRecord) -> None:
        """Wanted, or parked while the topic's breaker is open, so that it can be its probe."""
        if held.topic in self._parking_topics:
            held.state = HeldState.PARKED
            self._parked.setdefault(held.topic, {})[held.id] = None
        else:
            held.state = HeldState.WANTED
            self._wanted.add(held.id, held.topic)

    def _forget_place(self, record_id: int) -> None:
        self._wanted.discard(record_id)
        self._later.pop(record_id, None)
        former = self.by_id.get(record_id)
        if former is not None and former.state is HeldState.PARKED:
            self._parked.get(former.topic, {}).pop(record_id, None)

    def want(self, record_id: int) -> None:
        """The record may be sent again as soon as its key's turn and its topic allow."""
        held = self.by_id.get(record_id)
        if held is None or held.state in (HeldState.WANTED, HeldState.ASKED):
            return
        self._forget_place(record_id)
        self._place(held)

    def park_topic(self, topic: str) -> None:
        """The topic's breaker opened: what is wanted of it waits behind it."""
        self._parking_topics.add(topic)
        for record_id in [wanted_id for wanted_id in self._wanted if self.by_id[wanted_id].topic == topic]:
            self._wanted.discard(record_id)
            self._place(self.by_id[record_id])

    def want_parked(self, topic: str) -> None:
        """The topic's breaker closed: all that was parked behind it is wanted again, lowest id first."""
        self._parking_topics.discard(topic)
        for record_id in sorted(self._parked.pop(topic, {})):
            self._place(self.by_id[record_id])

    def probe_candidate(self, topic: str) -> HeldRecord | None:
        """Return a parked record to probe the topic with, and put it last, so that the next probe takes another key."""
        parked = self._parked.get(topic, {})
        for record_id in parked:
            held = self.by_id[record_id]
            if held.gate_key is None or self._gate.is_turn_of(held.gate_key, record_id):
                del parked[record_id]
                parked[record_id] = None
                return held
        return None

    def has_parked(self, topic: str) -> bool:
        """Whether anything is parked behind the topic's breaker."""
        return bool(self._parked.get(topic))

    def choose(
        self,
        rows_max: int,
        held_topics: Iterable[str],
        probes: Iterable[int],
        waits: Callable[[HeldRecord], bool] | None = None,
    ) -> list[HeldRecord]:
        """Return the records to ask for in the next fetch: probes, then the wanted ones whose turn it is, oldest
        wish first.

        `waits` says of a record that it has to, since earlier ones of its key may be among what was not read yet.
        """
        chosen = [self.by_id[record_id] for record_id in probes if record_id in self.by_id]
        closed = set(held_topics)
        blocked: list[int] = []
        for record_id in islice(self._wanted, SCANNED_MAX):
            if len(chosen) >= rows_max:
                break
            held = self.by_id[record_id]
            is_turn = held.gate_key is None or self._gate.is_turn_of(held.gate_key, record_id)
            if is_turn and held.topic not in closed and not (waits and waits(held)):
                chosen.append(held)
            else:
                blocked.append(record_id)
        for record_id in blocked:
            # Last again, so that the next look sees others first and each look is short.
            self._wanted.put_last(record_id)
        return chosen

    def are_wanted(self, closed: AbstractSet[str]) -> bool:
        """Say whether any record waits to be read again that is of a topic that is not `closed`."""
        return self._wanted.are_open(closed)

    def has_wanted_turn(self, closed: AbstractSet[str]) -> bool:
        """Whether it is any wanted record's turn, of a topic that is not `closed`."""
        return self._wanted.are_open(closed) and any(
            held.topic not in closed and (held.gate_key is None or self._gate.is_turn_of(held.gate_key, held.id))
            for held in map(self.by_id.__getitem__, self._wanted)
        )

    def asked(self, chosen: Sequence[HeldRecord]) -> None:
        """These are in the fetch that goes out now."""
        self._asked = []
        for held in chosen:
            self._forget_place(held.id)
            held.state = HeldState.ASKED
            self._asked.append(held.id)

    def waits_for_partition(self, records: Iterable[Record]) -> None:
        """These were dropped when they were read, since they go to a held partition; what is held of them is wanted
        again.
        """
        for record in records:
            held = self.by_id.get(record.id)
            if held is not None:
                held.partition = record.partition
                self.not_answered([record.id])

    def asked_records(self) -> list[HeldRecord]:
        """Return the records that the fetch under way asks for."""
        return [self.by_id[record_id] for record_id in self._asked if record_id in self.by_id]

    def not_answered(self, record_ids: Iterable[int]) -> None:
        """The fetch did not get to these (a limit, a failure), or it was not their turn: they are wanted again."""
        for record_id in record_ids:
            held = self.by_id.get(record_id)
            if held is not None and held.state is HeldState.ASKED:
                self._place(held)

    def remove(self, record_id: int) -> HeldRecord | None:
        """The record is admitted, discarded or gone: it is held no more. The caller tells the gate."""
        self._forget_place(record_id)
        self._replays.discard(record_id)
        return self.by_id.pop(record_id, None)

    @property
    def takes_replays(self) -> bool:
        """Whether there is room for more dead letters that are to be replayed."""
        return len(self._replays) < REPLAYS_MAX

    @property
    def next_due_at(self) -> float | None:
        """When the next replay that failed is due; None when there is none."""
        return min(self._later.values(), default=None)
