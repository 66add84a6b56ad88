"""Wishes: what the next fetch is to show, by how far the outbox was read and by what waits to be read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice

from outboxd.policy.exchange.requests import Known
from outboxd.policy.fetch.gaps import Gaps
from outboxd.policy.keys.key_gate import WAITING_PER_KEY_MAX, KeyGate
from outboxd.policy.rows.records import FIRST_ID, ID_MAX
from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.admit.answers import end_before_position
from outboxd.relay.admit.probing import PROBE_ROWS_MAX, Probing
from outboxd.relay.memory.held_record import HeldRecord
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.ports import FetchRequest

KEYS_REREAD_MAX = 100
TOPICS_CAUGHT_UP_MAX = 4
CATCH_UP_PARTS, PARTS = 3, 4
"""Topics that catch up take three parts in four of a fetch: others' new records do not wait for a long backlog."""
CATCH_UP_ROWS_MAX = 1_000_000
"""No limit but the fetch's own."""
QUICK_SECONDS, SLOW_SECONDS = 0.05, 0.2
"""How long a fetch of topics may take, beside what any takes, that it passes over more, or less, next time."""
CHOSEN_ROWS_MAX = 500
FOUND_MAX = 5_000
"""While so many records wait to be read by id, no more are listed that came to be due."""
HOLDING_SECONDS = 0.5
"""So often is a part of the dead letters that hold their keys listed."""


@dataclass(slots=True)
class Cursors:
    """How far the outbox was read."""

    position: int = FIRST_ID
    retry: tuple[datetime, int] | None = None
    replay: int = FIRST_ID
    holding: int = FIRST_ID
    available: tuple[datetime, int] | None = None


class Wishes:
    """Makes the requests; admission notes in `cursors`, `gaps` and `found` what their answers showed."""

    def __init__(
        self,
        gate: KeyGate,
        topics: TopicHolds,
        held: HeldRecords,
        probing: Probing,
        ledger: Ledger,
        *,
        partitions: PartitionHolds,
        reach_ids_min: int = ID_MAX,
    ) -> None:
        """All of these are the relay's; each has records of its own kind that wait to be read again. Reads of a topic
        cover `reach_ids_min` ids at least, where there are more.
        """
        self._gate = gate
        self._topics = topics
        self._partitions = partitions
        self._held = held
        self._probing = probing
        self._ledger = ledger
        self.gaps = Gaps()
        self.cursors = Cursors()
        self._catch_up_rows_max = CATCH_UP_ROWS_MAX
        self.found: dict[int, None] = {}
        """Ids of pending records that nobody knows; they are read without order."""
        self._reach_ids = reach_ids_min
        self._reach_ids_min = reach_ids_min
        self._others_seconds = float("inf")
        """The shortest time that a fetch took which read no topic."""
        self._went_back_from: int | None = None
        """The position from which reading went back, until it is there again by what it showed."""
        self.wants_top = False
        """Whether the next fetch is to tell how far the pending records reach that are not due yet."""
        self.wants_holding = False
        """Whether the next fetch is to list some of the dead letters that hold their keys."""
        self._holding_at = 0.0

    def request(self, rows_max: int, bytes_max: int) -> FetchRequest:
        """Return what to ask the database for now, within these limits."""
        closed = self._topics.held
        chosen = self._held.choose(min(rows_max, CHOSEN_ROWS_MAX), closed, self._probing.ids, self._waits)
        self._held.asked(chosen)
        found = list(islice(self.found, CHOSEN_ROWS_MAX))
        for record_id in [record_id for record_id in found if record_id in self._held]:
            # Held meanwhile, so it is known; it would else be wanted for ever.
            found.remove(record_id)
            del self.found[record_id]
        lows, highs = self.gaps.ranges()
        cursors = self.cursors
        rereads = self._gate.rereads.wanted(KEYS_REREAD_MAX, closed)
        catch_ups = self._topics.catch_ups(TOPICS_CAUGHT_UP_MAX)
        return FetchRequest(
            position=cursors.position,
            rows_max=rows_max,
            bytes_max=bytes_max,
            gap_lows=lows,
            gap_highs=highs,
            known=None if self.gaps.merged_to is None else self._known(self.gaps.merged_to),
            want_locks=bool(lows),
            chosen_ids=[held.id for held in chosen if not held.is_replay] + found,
            replay_ids=[held.history.dead_letter_id or 0 for held in chosen if held.is_replay],
            rereads=rereads,
            reread_rows_max=self._reread_rows(rows_max, len(rereads)),
            catch_ups=catch_ups,
            catch_up_rows_max=self._catch_up_rows(rows_max, len(catch_ups)),
            probe_reads=self._probing.reads,
            probe_rows_max=PROBE_ROWS_MAX,
            reach_ids=self._reach_ids,
            retry_cursor=cursors.retry,
            replay_cursor=cursors.replay,
            available_cursor=self._available_cursor,
            want_top=self.wants_top and self._went_back_from is None,
            holding_after=cursors.holding if self.wants_holding else None,
        )

    def _reread_rows(self, rows_max: int, keys: int) -> int:
        """Return how many records are read again of each of so many keys: the fewer keys, the more."""
        share = max(WAITING_PER_KEY_MAX, rows_max // max(1, keys))
        return min(self._gate.waiting_per_key_max, share)

    def _waits(self, held: HeldRecord) -> bool:
        """Say whether earlier ones of the record's key may be among what was not read yet."""
        from_id = self._topics.deferred.get(held.topic)
        is_behind = from_id is not None and held.id >= from_id
        return is_behind or self._partitions.waits(held.topic, held.key, held.partition, held.id)

    @property
    def _available_cursor(self) -> tuple[datetime, int] | None:
        """From where delayed records are listed; None where enough of them are known that were not read yet."""
        return self.cursors.available if len(self.found) < FOUND_MAX else None

    def _known(self, last_id: int) -> Known:
        """Return what is known of the pending records up to `last_id`, which merged gaps ask for once more."""
        ids = [
            record_id
            for record_id in chain(self._ledger.records, self._held.by_id, self._held.letters.ids)
            if record_id <= last_id
        ]
        topics = dict(self._topics.deferred)
        # Records of the topics' other partitions too: they show when the whole topic is read again.
        topics.update((topic, min(i, topics.get(topic, i))) for topic, i in self._partitions.deferred.items())
        keys: dict[str, dict[str, int]] = {}
        # All of them, however many: what the look-back shows of those that are left out is dropped and shown again, and
        # where that alone fills a fetch, nothing behind the look-back is ever read.
        for (topic, key), from_id in self._gate.deferred_keys.items():
            if from_id > last_id:
                continue
            if key is not None:
                keys.setdefault(topic, {})[key] = from_id
            else:
                topics[topic] = min(from_id, topics.get(topic, from_id))
        return Known(ids, topics, keys)

    def _catch_up_rows(self, rows_max: int, topics: int) -> int:
        """Return how many records of each topic that catches up are read at once: some room is left to what is new."""
        share = min(rows_max * CATCH_UP_PARTS // PARTS, self._catch_up_rows_max)
        return max(1, share // topics) if topics else 0

    def caught_up(self, rows: int, all_rows: int, *, is_cut: bool) -> None:
        """So many of all records that a fetch showed are of topics that catch up; `is_cut`: what is new had no room."""
        if is_cut and 2 * rows > all_rows:
            # Large ones: it was their bytes that were too many.
            self._catch_up_rows_max = max(1, rows * CATCH_UP_PARTS // PARTS)
        elif self._catch_up_rows_max < CATCH_UP_ROWS_MAX:
            self._catch_up_rows_max = min(CATCH_UP_ROWS_MAX, 2 * self._catch_up_rows_max)

    def took(self, request: FetchRequest, seconds: float) -> None:
        """The fetch took so long: reads of topics cover more ids next time where it was quick, and fewer where it was
        slow. What is of other topics between them is passed over, and may be many rows or none.
        """
        topics = [wish.from_id for wish in (*request.catch_ups, *request.probe_reads)]
        topics += [wish.from_id for wish in request.rereads if wish.gate_key[1] is None]
        if not topics:
            self._others_seconds = min(seconds, self._others_seconds)
            return
        # What any fetch costs, on a slow network, is no reason to pass over less.
        if self._others_seconds < float("inf"):
            seconds = max(0.0, seconds - self._others_seconds)
        if seconds > SLOW_SECONDS:
            self._reach_ids = max(self._reach_ids_min, self._reach_ids // 4)
        elif seconds < QUICK_SECONDS and any(end_before_position(request, from_id) is not None for from_id in topics):
            self._reach_ids = min(ID_MAX, 4 * self._reach_ids)

    def request_for_orders(self) -> FetchRequest:
        """Return what to ask the database for while there is no room for any record: what operators want, what is
        due.
        """
        cursors = self.cursors
        return FetchRequest(
            position=cursors.position,
            rows_max=1,
            bytes_max=1,
            forward=False,
            retry_cursor=cursors.retry,
            replay_cursor=cursors.replay,
            available_cursor=self._available_cursor,
            holding_after=cursors.holding if self.wants_holding else None,
        )

    def found_by_sweep(self, record_ids: Sequence[int]) -> None:
        """The sweep saw these pending, and nobody knows them: they are read by id next, without order."""
        self.found.update(dict.fromkeys(record_ids))

    def go_back(self, record_id: int) -> None:
        """Read forward from this record on once more, in id order: too much below the position is known to nobody.

        What is in memory, held or deferred is recognised when it shows again.
        """
        position = self.cursors.position
        if record_id > position:
            return
        self._went_back_from = position
        self.cursors.position = max(FIRST_ID, record_id - 1)
        self.gaps.forget_above(record_id - 1)
        self.found = {found_id: None for found_id in self.found if found_id < record_id}

    def read_forward_to(self, position: int, *, by_record: bool) -> None:
        """The forward read came this far: to a record that it showed, or to the end of what is not due yet."""
        self.cursors.position = position
        if by_record and self._went_back_from is not None and position >= self._went_back_from:
            self._went_back_from = None

    def look_at_holding(self, now: float) -> None:
        """While a dead letter holds its key, some of them are listed twice a second: operators discard and edit them.

        Without one the sweep asks alone, for a discard that was undone.
        """
        self.wants_holding |= bool(self._held.letters) and now >= self._holding_at

    def holding_listed(self, cursor: int | None, now: float) -> None:
        """Dead letters that hold their keys were listed up to `cursor`, or to the end: the next ones a little later."""
        self.wants_holding = False
        self.cursors.holding = FIRST_ID if cursor is None else cursor
        self._holding_at = now + HOLDING_SECONDS

    @property
    def wants_more(self) -> bool:
        """Whether something besides new records waits to be read, of a topic that is not held. Asked in every turn."""
        closed = self._topics.held.keys()
        return bool(
            self.found
            or self._held.are_wanted(closed)
            or self._gate.rereads.are_wanted(closed)
            or self._topics.want_catch_ups
        )

    @property
    def has_open(self) -> bool:
        """Whether anything that waits to be read again could go: it is of no held topic, and behind no held record."""
        closed = self._topics.held.keys()
        return bool(
            self.found
            or self._gate.rereads.are_wanted(closed)
            or self._topics.want_catch_ups
            or self._held.has_wanted_turn(closed)
        )

    def start_again(self) -> None:
        """Read from the beginning: the database may be another one than before."""
        self.gaps.clear()
        self.cursors = Cursors()
        self._went_back_from = None
        self.found.clear()
