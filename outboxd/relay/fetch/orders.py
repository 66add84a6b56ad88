"""Orders: what the database tells besides records. What is held, retries that are due, what operators replay, discard,
edit and pause, and held records that somebody took away.
"""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.blame.routes import matches_pattern
from outboxd.policy.faults import fault_named
from outboxd.policy.rows.records import FailureHistory
from outboxd.policy.topics.breakers import storm_of
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.ports import DueReplay, Fetched, HoldingLetters, KeyHolder, Loaded, Pause
from outboxd.relay.state import State


class Orders:
    """Applies them to the relay's memory, on its thread."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state

    def on_told(self, fetched: Fetched) -> bool:
        """Take the retries that are due and the replays. Return whether all were taken that are listed."""
        held_records = self._state.held
        for record_id in fetched.due_ids:
            held = held_records.by_id.get(record_id)
            if held is not None and held.state is HeldState.SCHEDULED:
                held_records.want(record_id)
        has_room, are_taken = held_records.takes_replays, True
        for replay in fetched.replays:
            # One that is known as a dead letter already, since it holds its key, takes no more room.
            # One that is behind another is listed again once that one has gone; who takes it now may not know of that.
            if replay.is_behind:
                are_taken = False
            elif has_room or replay.outbox_id in held_records or replay.outbox_id in held_records.letters.ids:
                are_taken &= self._on_replay(replay)
        return are_taken

    def _on_replay(self, replay: DueReplay) -> bool:
        """Return whether it is held now: not where a record of its id is in memory, which may be another one."""
        state = self._state
        if state.ledger.knows(replay.outbox_id):
            return False
        former = state.held.by_id.get(replay.outbox_id)
        if former is not None:
            if former.history.dead_letter_id != replay.dead_letter_id:
                # An id that was given again: this one waits until the other one has gone.
                return False
            # Taken back, changed and replayed again, before it went.
            state.wants_reload |= (former.topic, former.key) != (replay.topic, replay.key)
            return True
        for letter in state.held.letters.of(replay.outbox_id, replay.dead_letter_id):
            # An operator may have changed topic or key: the old key is let go, the new one held.
            self._release_letter(letter)
        state.lanes.meet([replay.topic])
        history = FailureHistory(replay.attempts, replay.dead_letter_id)
        gate_key = state.gate.key_for(replay.topic, replay.key)
        now = state.ports.clock.monotonic()
        state.held.add(
            HeldRecord(
                id=replay.outbox_id,
                topic=replay.topic,
                gate_key=gate_key,
                history=history,
                state=HeldState.WANTED,
                why="replay",
                since=now,
                key=replay.key,
            )
        )
        state.ledger.forget_dropped(state.gate)
        return True

    def hold(self, holder: KeyHolder, now: float) -> None:
        """Hold what the database says is held."""
        state = self._state
        state.lanes.meet([holder.topic])
        held_state = HeldState.SCHEDULED
        if holder.dead_letter_id is not None:
            held_state = HeldState.WANTED if holder.replaying else HeldState.DEAD
        history = FailureHistory(holder.attempts, holder.dead_letter_id, now - holder.waited_seconds)
        gate_key = state.gate.key_for(holder.topic, holder.key)
        why = "retry" if holder.dead_letter_id is None else "dead letter"
        # No pause is longer than this, whatever the database's clock was when it was written.
        longest = state.lanes[holder.topic].route.retry.backoff_max_seconds
        due_at = now + min(holder.due_in_seconds, longest)
        if holder.dead_letter_id is None:
            state.aftermath.histories.ages(holder.outbox_id, holder.topic, now, holder.own_age_seconds)
        state.held.add(
            HeldRecord(
                id=holder.outbox_id,
                topic=holder.topic,
                gate_key=gate_key,
                history=history,
                state=held_state,
                why=why,
                since=now,
                due_at=due_at,
                key=holder.key,
            )
        )

    def try_stormed(self, loaded: Loaded) -> None:
        """Topics that stormed under an owner before, and that an operator let go since, are tried by one row at a time:
        nothing was delivered of them yet.
        """
        noted = [pause for pause in loaded.pauses if storm_of(pause.note) is not None]
        for holder in loaded.holders:
            fault = fault_named(holder.error_code) if not holder.attempts and holder.dead_letter_id is None else None
            is_noted = any(matches_pattern(holder.topic, pause.topic_pattern) for pause in noted)
            if fault is not None and not is_noted:
                now = self._state.ports.clock.monotonic()
                self._state.aftermath.holding.try_all_again({holder.topic: fault.code}, now)

    def on_holding(self, after: int, listed: HoldingLetters, asked_at: float) -> None:
        """Take the dead letters that hold their keys, above the id `after`, as they were at `asked_at` or later.

        What is not among them was discarded, or given another key; what is and was not known is a discard that was
        undone, or the edited letter. Here they show whenever they were committed.
        """
        state = self._state
        now = state.ports.clock.monotonic()
        letters: dict[int, list[KeyHolder]] = {}
        for letter in listed.letters:
            letters.setdefault(letter.outbox_id, []).append(letter)
        for held in state.held.letters.between(after, listed.cursor):
            is_held = any((each.topic, each.key) == (held.topic, held.key) for each in letters.get(held.id, ()))
            # What died since need not be among them.
            if not is_held and held.since <= asked_at:
                self._release_letter(held)
        for letter in listed.letters:
            # A replay is listed apart; what is in memory is being sent, or its death is being written.
            is_known = letter.outbox_id in state.held or state.ledger.knows(letter.outbox_id)
            gate_key = state.gate.key_for(letter.topic, letter.key)
            if not letter.replaying and not is_known and state.held.letters.find(letter.outbox_id, gate_key) is None:
                self.hold(letter, now)
        state.ledger.forget_dropped(state.gate)

    def on_vanished(self, held: HeldRecord) -> None:
        """Somebody else deleted, published or resolved a record that was held. A replay that was taken back may be a
        dead letter again that holds its key.
        """
        state = self._state
        state.wants_reload |= held.is_replay
        self._release_held(held)
        if not held.is_replay:
            state.settling.out_of_retry(held.id)
        state.lanes.breakers.probe_ended(held.topic, held.id, state.ports.clock.monotonic())

    def _release_held(self, held: HeldRecord) -> None:
        state = self._state
        state.held.remove(held.id)
        state.in_doubt.discard(held.id)
        state.aftermath.histories.forget(held.id)
        self._let_key_go(held)

    def _release_letter(self, letter: HeldRecord) -> None:
        self._state.held.letters.remove(letter)
        self._let_key_go(letter)

    def _let_key_go(self, held: HeldRecord) -> None:
        state = self._state
        if held.gate_key is not None:
            following = state.gate.release(held.gate_key, held.id)
            if following is not None:
                state.ready.append(following)

    def on_pauses(self, pauses: Sequence[Pause], given_at: float) -> None:
        """Take the rows of `control` as they were read at `given_at` or later."""
        state = self._state
        stopped, resumed = state.lanes.pause(pauses, given_at)
        if stopped:
            state.gate.defer_waiting(set(stopped))
            state.ledger.forget_dropped(state.gate)
        for topic in stopped:
            state.ports.observer.event("topic_paused", topic=topic)
        for topic in resumed:
            state.ports.observer.event("topic_resumed", topic=topic)
        for topic, fault in state.lanes.take_let_go().items():
            state.aftermath.holding.try_again(topic, fault, state.ports.clock.monotonic())
