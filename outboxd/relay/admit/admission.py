"""Admission: from the answer of a fetch to the records that go now.

All parts of a fetch are one snapshot, so they are merged in id order before the key gate sees them: that is what
keeps a key's order when a late commit and newer records show up together. Where a limit cut the answer, the parts
behind the cut were not read, and stay wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import FIRST_ID, Arm, GateKey, Record, id_of, topic_of
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.admit.answers import NotRead, Refused, completeness, cut_arm_of, divide, end_before_position, merge
from outboxd.relay.admit.probing import Probing
from outboxd.relay.admit.wishes import Wishes
from outboxd.relay.memory.held_record import HeldRecord
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.ports import Fetched, FetchRequest


@dataclass(slots=True)
class Admitted:
    """What a fetch brought: records that go now, those of them that were held, and what is gone from the database."""

    ready: list[Record] = field(default_factory=list)
    resumed: list[tuple[Record, HeldRecord]] = field(default_factory=list)
    vanished: list[HeldRecord] = field(default_factory=list)


class Admission:
    """Decides, with the key gate and what is held of topics, which of the records that were read go."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        topics: TopicHolds,
        partitions: PartitionHolds,
        held: HeldRecords,
        ledger: Ledger,
        lanes: Lanes,
        probing: Probing,
        wishes: Wishes,
    ) -> None:
        """All of these are the relay's; admission changes them, on the relay's thread."""
        self._gate = gate
        self._topics = topics
        self._partitions = partitions
        self._held = held
        self._ledger = ledger
        self._lanes = lanes
        self._probing = probing
        self._wishes = wishes

    def take(self, request: FetchRequest, fetched: Fetched, now: float) -> Admitted:
        """Merge the parts, note what was not read, and let the gates decide."""
        records = fetched.records
        self._note_cursors(request, fetched)
        cut_arm = cut_arm_of(records, request)
        special, forward = divide(records)
        self._note_look_back(request, special, fetched.locks, cut_arm)
        vanished = self._note_chosen(request, special, cut_arm, now)
        refused = Refused()
        self._note_rereads(request, special, cut_arm, refused)
        self._note_catch_ups(request, special, cut_arm, refused)
        if request.forward:
            self._note_forward(forward, fetched.top_id if cut_arm is None else None)
        # Only now without the changed ones: what was read, and how far, the whole answer tells.
        usable = self._without_changed(special) if special and len(self._held) else special
        fresh = self._ledger.unknown(merge(self._own_turn(usable, refused), forward))
        if len(self._held):
            fresh = [
                record for record in fresh if record.id not in self._held or record.arm in (Arm.CHOSEN, Arm.REPLAY)
            ]
        letters = self._held.letters
        if letters:
            fresh = [
                record
                for record in fresh
                if record.id in self._held or not letters.has_place_of(record.id, record.topic, record.key)
            ]
        admitted = Admitted(vanished=vanished)
        topics = set(map(topic_of, fresh))
        self._lanes.meet(topics)
        if self._topics.touches(topics):
            fresh = self._pass_topics(fresh)
        if self._partitions.touches(topics):
            fresh, dropped = self._partitions.split(fresh, self._held)
            self._held.waits_for_partition(dropped)
        probes = self._probing.take(request, special, cut_arm, now) if self._probing.reads else []
        self._admit(fresh, probes, admitted, now)
        self._gate.rereads.settle(request.rereads)
        return admitted

    def _note_cursors(self, request: FetchRequest, fetched: Fetched) -> None:
        cursors = self._wishes.cursors
        cursors.retry = fetched.retry_cursor or cursors.retry
        if cursors.available is None or request.available_cursor is not None:
            cursors.available = fetched.available_cursor or cursors.available
        # Once all were listed it begins anew: operators replay in any order.
        if not fetched.replays:
            cursors.replay = FIRST_ID
        elif self._held.takes_replays:
            cursors.replay = fetched.replays[-1].outbox_id
        if fetched.available_ids:
            self._wishes.found_by_sweep(
                [i for i in fetched.available_ids if not self._ledger.knows(i) and i not in self._held]
            )

    def _note_look_back(
        self, request: FetchRequest, special: list[Record], locks: frozenset[str], cut_arm: int | None
    ) -> None:
        asked = len(request.gap_lows)
        if not asked:
            return
        found = [record.id for record in special if record.arm == Arm.LOOK_BACK]
        complete_to = found[-1] if found and cut_arm == Arm.LOOK_BACK else None
        self._wishes.gaps.looked_back(asked, found, locks, complete_to=complete_to)

    def _note_chosen(
        self, request: FetchRequest, special: list[Record], cut_arm: int | None, now: float
    ) -> list[HeldRecord]:
        """Return the records that were asked for and are gone from the database; those behind a cut stay wanted."""
        if not request.chosen_ids and not request.replay_ids:
            return []
        shown = {record.id: record for record in special if record.arm in (Arm.CHOSEN, Arm.REPLAY)}
        vanished: list[HeldRecord] = []
        for held in self._held.asked_records():
            record = shown.get(held.id)
            arm = Arm.REPLAY if held.is_replay else Arm.CHOSEN
            if record is None and cut_arm is not None and cut_arm <= arm:
                self._want_again(held, now)
            elif record is None or self._held.has_other_key(record):
                vanished.append(held)
        for record_id in request.chosen_ids:
            if cut_arm is None or cut_arm > Arm.CHOSEN or record_id in shown:
                self._wishes.found.pop(record_id, None)
        return vanished

    def _without_changed(self, special: list[Record]) -> list[Record]:
        """Return the special records without those that somebody gave another key while they were held: what was held
        is gone then, and frees the key it was held by.
        """
        return [record for record in special if not self._held.has_other_key(record)]

    def _note_rereads(
        self, request: FetchRequest, special: list[Record], cut_arm: int | None, refused: Refused
    ) -> None:
        if not request.rereads:
            return
        shown = [record for record in special if record.arm == Arm.REREAD]
        ids_by_key: dict[GateKey | None, list[int]] = {}
        for record in shown:
            ids_by_key.setdefault(self._gate.key_of(record), []).append(record.id)
        for wish in request.rereads:
            ids = ids_by_key.get(wish.gate_key, [])
            end_id = end_before_position(request, wish.from_id) if wish.gate_key[1] is None else None
            state = completeness(ids, shown, request.reread_rows_max, Arm.REREAD, cut_arm, end_id=end_id)
            if isinstance(state, NotRead) or not self._gate.rereads.answered(wish, state):
                refused.gate_keys.add(wish.gate_key)

    def _note_catch_ups(
        self, request: FetchRequest, special: list[Record], cut_arm: int | None, refused: Refused
    ) -> None:
        if request.probe_reads:
            # Their topics are held: what they show is for a probe only.
            refused.topics.update(wish.topic for wish in request.probe_reads)
        if not request.catch_ups:
            return
        shown = [record for record in special if record.arm == Arm.CATCH_UP]
        for wish in request.catch_ups:
            ids = [record.id for record in shown if record.topic == wish.topic]
            end_id = end_before_position(request, wish.from_id)
            state = completeness(ids, shown, request.catch_up_rows_max, Arm.CATCH_UP, cut_arm, end_id=end_id)
            if isinstance(state, NotRead) or not self._topics.caught_up(wish, state):
                refused.topics.add(wish.topic)
        self._wishes.caught_up(len(shown), len(special), is_cut=cut_arm == Arm.CATCH_UP)

    def _note_forward(self, forward: list[Record], top_id: int | None) -> None:
        """Note how far was read: to the last record that was shown, or to `top_id`, above which nothing is pending.

        What is pending below that and was not shown is not due: it is listed once it is, and not passed over by each
        fetch until then.
        """
        self._wishes.wants_top = not forward
        position = self._wishes.cursors.position
        last_id = forward[-1].id if forward else position
        if top_id is not None:
            last_id = max(last_id, top_id)
        if last_id == position:
            return
        if last_id - position != len(forward):
            self._wishes.gaps.seen_below(position, last_id, map(id_of, forward))
        self._wishes.read_forward_to(last_id, by_record=bool(forward) and forward[-1].id == last_id)

    def _own_turn(self, special: list[Record], refused: Refused) -> list[Record]:
        """Return the special records without those whose answer cannot be used."""
        if not refused.gate_keys and not refused.topics:
            return special
        return [
            record
            for record in special
            if not (record.arm == Arm.REREAD and self._gate.key_of(record) in refused.gate_keys)
            and not (record.arm == Arm.CATCH_UP and record.topic in refused.topics)
        ]

    def _admit(self, fresh: list[Record], probes: list[Record], admitted: Admitted, now: float) -> None:
        """Let the gates decide; `probes` go whatever these say."""
        if probes:
            probe_ids = {record.id for record in probes}
            fresh = [record for record in fresh if record.id not in probe_ids]
        self._ledger.enter(fresh)
        ready = self._gate.admit(fresh)
        if probes:
            self._ledger.enter(probes)
            ready = probes + ready
        if len(self._held):
            self._resume(fresh, ready, admitted, now)
        self._ledger.forget_dropped(self._gate)
        admitted.ready = ready

    def _resume(self, fresh: list[Record], ready: list[Record], admitted: Admitted, now: float) -> None:
        """Records that were held and go now are held no more; those that the gate refused still are."""
        for record in ready:
            held = self._held.remove(record.id)
            if held is not None:
                admitted.resumed.append((record, held))
        for record in fresh:
            held = self._held.by_id.get(record.id)
            if held is not None:
                self._want_again(held, now)

    def _want_again(self, held: HeldRecord, now: float) -> None:
        """The record was asked for and does not go; if it was a probe, it is none any more."""
        self._held.not_answered([held.id])
        self._lanes.breakers.probe_ended(held.topic, held.id, now)

    def _pass_topics(self, fresh: list[Record]) -> list[Record]:
        """Drop what belongs to held topics; their probes pass, and failed records are wanted again later."""
        passed, dropped = self._topics.split(fresh, self._held)
        for record in dropped:
            if record.id not in self._held:
                self._probing.dropped(record)
                continue
            if self._lanes.breakers.is_probe(record.topic, record.id):
                passed.append(record)
            else:
                self._held.not_answered([record.id])
        passed.sort(key=id_of)
        return passed
