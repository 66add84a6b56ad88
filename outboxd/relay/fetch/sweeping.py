"""Sweeping: a slow walk over all pending records, for those that no other read would ever show.

It finds what committed long after its id was drawn, without order, and tells `run --until-empty` that nothing is left.
"""

from __future__ import annotations

from outboxd.policy.fetch.strides import Strides
from outboxd.policy.rows.records import FIRST_ID
from outboxd.relay.ports import SweepRequest, Swept
from outboxd.relay.state import State

SWEEP_ROWS_MAX = 20_000
SKIPPED_KEYS_MAX = 1_000
SHARE = 20
"""A walk takes the database for at most one part in so many of the time,"""
FOUND_ROWS_MAX = 500
"""Where more were found than go by one fetch, they are read in id order instead."""
INTERVALS_MAX = 12
"""but the next one begins after so many intervals, whatever the one before took."""


class Sweeping:
    """Walks the pending index a chunk at a time, once every interval."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self.next_at = state.ports.clock.monotonic() + state.limits.sweep_interval_seconds
        self.swept_empty = False
        self._cursor: int | None = None
        self._end = FIRST_ID
        self._strides = Strides()
        self._is_last_chunk = True
        self._began_at = 0.0
        self._walked_seconds = 0.0
        self._was_idle = False
        self._gave_way = False
        self._lowest_found: int | None = None
        """In the present walk, where reading went not back to it yet."""
        self._found_below: int | None = None
        """The position below which the walk before found something."""

    def sweep(self, now: float, *, gives_way: bool) -> bool:
        """Begin the next chunk where it is time; return whether it began. Where it `gives_way`, a fetch that is due
        goes between two chunks: new rows do not wait for the end of a long walk.
        """
        if now < self.next_at:
            return False
        if gives_way and self._cursor is not None and not self._gave_way:
            self._gave_way = True
            return False
        state = self._state
        if self._waits_for_found:
            return False
        self._gave_way = False
        if self._cursor is None:
            self._cursor = FIRST_ID
            self._end = state.wishes.cursors.position
            self._strides.begin(self._end)
            self._began_at = now
            self._walked_seconds = 0.0
            self._was_idle = state.is_idle
            self._lowest_found = None
            state.held.want_overdue(now)
            state.wishes.cursors.retry = None
            state.wishes.cursors.replay = FIRST_ID
            state.wishes.wants_holding = True
        keys = [key for key in state.gate.deferred_keys if key[1] is not None][:SKIPPED_KEYS_MAX]
        # What is above its end was read forward since the walk began.
        position = min(self._end, state.wishes.cursors.position)
        chunk_end = self._strides.end(position)
        self._is_last_chunk = chunk_end == position
        request = SweepRequest(
            cursor=self._cursor,
            position=chunk_end,
            rows_max=SWEEP_ROWS_MAX,
            skipped_topics=self._left_out(),
            skipped_keys=[(topic, key) for topic, key in keys if key is not None],
        )
        state.reading = request
        state.ledger.fetch_begins()
        state.ports.store.begin_sweep(request)
        return True

    @property
    def deadline(self) -> float:
        """When the next chunk is due."""
        return float("inf") if self._waits_for_found else self.next_at

    @property
    def _waits_for_found(self) -> bool:
        # Each chunk may find twenty thousand, and these are read by their ids.
        return self._cursor is not None and len(self._state.wishes.found) > FOUND_ROWS_MAX

    def hurry(self) -> None:
        """Sweep now: somebody waits to hear that nothing is left."""
        if self._cursor is None:
            self.next_at = 0.0

    def on_swept(self, swept: Swept) -> None:
        """Have what nobody knows read by its id."""
        state = self._state
        left_out = self._left_out()
        found = [
            record_id
            for record_id, topic, key in swept.found
            if not state.ledger.knows(record_id)
            and record_id not in state.held
            # Else it is found once that letter has gone.
            and not state.held.letters.has_place_of(record_id, topic, key)
            and not (topic in left_out and record_id >= left_out[topic])
            and not self._is_deferred(topic, key, record_id)
        ]
        state.ledger.fetch_ended()
        # What stands in a gap the next look-back shows, in its order: it may have committed while memory was full.
        late = [record_id for record_id in found if not state.wishes.gaps.covers(record_id)]
        if late:
            self._note_found(late)
        # Not the time between its chunks: an outage would put off the next walk for twenty times as long.
        self._walked_seconds += swept.seconds
        self._strides.took(swept.seconds, is_full=swept.cursor is not None)
        self._cursor = swept.cursor
        if swept.cursor is None and not self._is_last_chunk:
            self._cursor = self._strides.go_on()
        if self._cursor is None:
            self._strides.walked()
            self._consider_position()
            interval = state.limits.sweep_interval_seconds
            pause = min(max(interval, SHARE * self._walked_seconds), INTERVALS_MAX * interval)
            self.next_at = self._began_at + pause
            self.swept_empty = self._was_idle and not found and state.is_idle

    def _note_found(self, found: list[int]) -> None:
        wishes = self._state.wishes
        wishes.found_by_sweep(found)
        self._state.ports.observer.event("late_rows_found", rows=len(found))
        if len(wishes.found) > FOUND_ROWS_MAX:
            self._go_back(min(wishes.found))
            return
        lowest = min(found)
        self._lowest_found = lowest if self._lowest_found is None else min(lowest, self._lowest_found)

    def _consider_position(self) -> None:
        """At the end of a walk: where the outbox grows below the position and not above it, no forward read will ever
        show what comes: a sequence was set back, or somebody gave one row a high id.
        """
        below, lowest = self._found_below, self._lowest_found
        position = self._state.wishes.cursors.position
        self._found_below = None if lowest is None else position
        if lowest is not None and below == position:
            self._go_back(lowest)

    def _go_back(self, record_id: int) -> None:
        wishes = self._state.wishes
        position = wishes.cursors.position
        self._lowest_found = None
        wishes.go_back(record_id)
        self._state.ports.observer.event("reading_went_back", from_id=record_id, position=position)

    def _left_out(self) -> dict[str, int]:
        """Return the topics that are read again as a whole once they, or partitions of theirs, go on, each from an id
        on: what comes below that is shown by nothing else, and they may be held, or read again, for long.

        Held ones of which nothing was dropped are not among these: what is found of them may be their only probe.
        """
        state = self._state
        left_out = dict(state.topics.deferred)
        for topic, from_id in state.partitions.deferred.items():
            left_out[topic] = min(from_id, left_out.get(topic, from_id))
        return left_out

    def _is_deferred(self, topic: str, key: str | None, record_id: int) -> bool:
        gate = self._state.gate
        gate_key = gate.key_for(topic, key)
        return gate_key is not None and gate.is_deferred(gate_key, record_id)
