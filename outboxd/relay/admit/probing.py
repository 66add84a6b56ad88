"""Probing: which record tries a topic whose breaker is open.

By turns it is one that failed before and one that has not been tried: the lowest of its key in a short read of the
topic. Else one sick record alone would keep its topic waiting for ever, and nobody could tell whose the fault is.
Where a read shows none the next one goes on behind it, a little later: a long backlog of few keys is not walked through
at once, since other topics are to be read meanwhile; and after some seconds what failed before has its turn first.
"""

from __future__ import annotations

from outboxd.policy.exchange.requests import FetchRequest
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import ID_MAX, Arm, Record
from outboxd.policy.topics.breakers import Breaker, Breakers
from outboxd.policy.topics.topic_holds import CatchUp, HoldReason, TopicHolds
from outboxd.relay.admit.answers import end_before_position
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.ledger import Ledger

PROBE_ROWS_MAX = 500
"""So many records a short read shows."""
TOPICS_READ_MAX = 4
"""So many topics are read for a probe at once: each read may pass over much that is of other topics."""
KEYS_READ_MAX = 20_000
"""With so many keys met beside those that are in memory anyway it begins again, lest they fill memory."""


class Probing:
    """Chooses probes. `idle_topics` have nothing left to probe with: their breakers may close."""

    def __init__(
        self, *, breakers: Breakers, topics: TopicHolds, gate: KeyGate, held: HeldRecords, ledger: Ledger
    ) -> None:
        """All of these are the relay's; probing changes the breakers and the gate."""
        self._breakers = breakers
        self._topics = topics
        self._gate = gate
        self._held = held
        self._ledger = ledger
        self.ids: list[int] = []
        self.reads: list[CatchUp] = []
        self.idle_topics: list[str] = []
        self._dropped_topics: set[str] = set()
        """Topics that are read, and of which something was dropped since that began."""

    def look(self, now: float) -> bool:
        """Choose what the next fetch probes with; return whether there is anything."""
        self.ids, self.reads, self.idle_topics = [], [], []
        self._dropped_topics.clear()
        for topic in self._breakers.probes_due(now):
            if self._topics.held.get(topic) == {HoldReason.BREAKER}:
                self._choose(topic, now)
            else:
                self._breakers.no_probe(topic, now)
        return bool(self.ids or self.reads)

    def _choose(self, topic: str, now: float) -> None:
        breaker = self._breakers.open[topic]
        breaker.began_again = False
        from_id = self._lowest_untried(topic)
        candidate = None
        if from_id is None or not breaker.wants_untried or now >= breaker.turn_ends_at:
            candidate = self._held.probe_candidate(topic)
        if candidate is not None and self._may_pass_another(candidate.id, topic, breaker):
            candidate = None
        if candidate is not None:
            breaker.wants_untried = True
            breaker.nothing_untried = False
            self._breakers.probing(topic, candidate.id)
            self.ids.append(candidate.id)
        elif from_id is not None and len(self.reads) >= TOPICS_READ_MAX:
            self._breakers.look_on(topic, now)
        elif from_id is not None:
            self.reads.append(CatchUp(topic, max(from_id, breaker.begins_at(from_id))))
        elif not self._held.has_parked(topic):
            self.idle_topics.append(topic)
        else:
            # All that is parked waits behind a dead letter or a retry of its key.
            self._breakers.no_probe(topic, now)

    def _may_pass_another(self, record_id: int, topic: str, breaker: Breaker) -> bool:
        """Say whether lower records of the topic were seen late and wait for it, and were not looked at: one may be of
        the same key, and is the probe then.
        """
        if breaker.nothing_untried or breaker.begins_at(record_id) > record_id:
            return False
        return self._topics.deferred.get(topic, record_id) < record_id

    def _lowest_untried(self, topic: str) -> int | None:
        """Return the lowest id of the topic that waits only for the breaker, not behind a failed record of its key.

        In a topic that goes one record at a time all wait behind it, and those of other keys are to show whose the
        fault is.
        """
        gate = self._gate
        ids = [
            from_id
            for gate_key, from_id in gate.deferred_keys.items()
            if gate_key[0] == topic
            and not gate.is_busy(gate_key)
            and (topic in gate.serial_topics or from_id <= gate.held.get(gate_key, [from_id])[0])
        ]
        from_id = self._topics.deferred.get(topic)
        return min(ids if from_id is None else [*ids, from_id], default=None)

    def take(self, request: FetchRequest, records: list[Record], cut_arm: int | None, now: float) -> list[Record]:
        """Return the probes among what the short reads showed; they go at once, past their topics' holds."""
        probes: list[Record] = []
        for wish in self.reads:
            breaker = self._breakers.open.get(wish.topic)
            if breaker is None or breaker.probing_id is not None:
                continue
            if breaker.began_again:
                # Something older came up meanwhile, so that the lowest of a key may not be among these.
                self._breakers.no_probe(wish.topic, now)
                continue
            shown = [record for record in records if record.arm == Arm.CATCH_UP and record.topic == wish.topic]
            usable = [record for record in shown if not self._held.has_other_key(record)]
            probe = self._first_fit(usable, breaker, wish.from_id)
            if probe is not None:
                self._breakers.probing(wish.topic, probe.id)
                breaker.read_from = _behind(probe.id)
                breaker.wants_untried = False
                probes.append(probe)
                continue
            was_cut = len(shown) >= request.probe_rows_max or (cut_arm is not None and cut_arm <= Arm.CATCH_UP)
            end_id = end_before_position(request, wish.from_id)
            if was_cut or end_id is not None:
                last_id = shown[-1].id if shown else None
                self._go_on_behind(last_id if was_cut else end_id, breaker)
                self._breakers.look_on(wish.topic, now)
                continue
            if breaker.read_from is None:
                # What is parked of a key may wait for a reread that would show nothing: all of the key died since.
                self._gate.rereads.nothing_left(wish.topic, wish.from_id, set(map(self._gate.key_of, shown)))
                if not shown and wish.topic not in self._dropped_topics:
                    # All that waited was fire-and-forget, and went as probes.
                    self._topics.nothing_left(wish.topic, wish.from_id)
            breaker.look_again()
            breaker.wants_untried = False
            breaker.nothing_untried = True
            self._breakers.no_probe(wish.topic, now)
        self.reads = []
        return probes

    def _go_on_behind(self, seen_to: int | None, breaker: Breaker) -> None:
        """None up to this id, where any was looked at: the next look goes on behind it."""
        if seen_to is not None:
            breaker.read_from = _behind(seen_to)
        # What keeps a key from probing is one of these: as many keys as there are may all be in the way.
        in_the_way = len(self._ledger) + len(self._held) + len(self._gate.deferred_keys)
        if len(breaker.keys_read) > KEYS_READ_MAX + in_the_way:
            breaker.look_again()

    def dropped(self, record: Record) -> None:
        """A record of a held topic was seen and dropped: where it is older than what is looked at, begin again."""
        breaker = self._breakers.open.get(record.topic)
        if breaker is None:
            return
        under_way = [wish.from_id for wish in self.reads if wish.topic == record.topic]
        if under_way:
            self._dropped_topics.add(record.topic)
        if record.id < max(under_way, default=breaker.begins_at(record.id)):
            breaker.look_again()

    def _first_fit(self, shown: list[Record], breaker: Breaker, from_id: int) -> Record | None:
        """Return the first record that is the lowest of its key and may go."""
        for record in shown:
            if record.key is not None:
                key = record.topic, record.key
                if key in breaker.keys_read:
                    continue
                breaker.keys_read.add(key)
            if self._may_probe(record, from_id):
                return record
        return None

    def _may_probe(self, record: Record, from_id: int) -> bool:
        if self._ledger.knows(record.id) or self._held.letters.has_place_of(record.id, record.topic, record.key):
            return False
        held = self._held.by_id.get(record.id)
        if held is not None and held.state not in (HeldState.PARKED, HeldState.WANTED):
            return False
        gate_key = self._gate.key_of(record)
        if gate_key is None or record.topic not in self._gate.serial_topics:
            return self._gate.take_turn(record, from_id)
        if any(self._stands_before(held_id, record) for held_id in self._gate.held.get(gate_key, ())):
            return False
        # What was read before is of other keys: lower ones of this key are not among it.
        return self._gate.take_turn(record, record.id, past_held=True)

    def _stands_before(self, held_id: int, record: Record) -> bool:
        """Say whether the record has to wait for this failed one of its topic, which is held or on its way to be."""
        if held_id >= record.id or record.key is None:
            return False
        letter = self._held.letters.find(held_id, self._gate.key_of(record))
        failed = self._held.by_id.get(held_id) or letter or self._ledger.records.get(held_id)
        return failed is None or failed.key == record.key


def _behind(record_id: int) -> int:
    """Return where the next look begins; nothing is behind the highest id."""
    return min(record_id + 1, ID_MAX)
