"""Writing: when outcomes are settled, and what follows once they are written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from outboxd.policy.blame.backoff import failure_pause_seconds
from outboxd.policy.blame.fencings import MOVED, RIVAL
from outboxd.policy.blame.outcomes import DeadLetter, Retry
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import NO_HISTORY, FailureHistory, Record
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.refusals import TRIES_A_SECOND_MAX
from outboxd.relay.ports import Settled, SettleFailed, Settlement
from outboxd.relay.settle.restating import keep_from_reading, progress_row
from outboxd.relay.state import State

SETTLE_DELAY_SECONDS = 0.02
REFUSED = "settle, which it refuses"
WRITES = ("settle", REFUSED)
"""During what the writing session may fail; at the second the server answers, and writes nothing."""
REFUSALS_MAX = 20
"""So many settlements refused in a row, the largest with its parts down to single rows of several places, are not for
some rows' sake: it is the table that is locked, or a trigger that refuses every row. A pause comes before each next
one then, which is short: where few of many rows can be settled, these are found one by one."""
ASIDE_TOLD_SECONDS = 60.0
"""So often the log names a row that cannot be settled, while any is set aside; so often at most it says that many are
refused in a row, which may begin anew several times a second."""


class Writing:
    """The database's writing side of the flow."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self._next_at = 0.0
        self._began_at = 0.0
        self._failures = 0
        self._refusals = 0
        self._is_whole_refused = False
        """Whether one of these is no part of one before."""
        self._told_aside_at = float("-inf")
        self._is_wait_told = False
        self._is_refusal_told = False
        self._told_refusal_at = float("-inf")

    def _due_at(self, now: float) -> float:
        settling = self._state.settling
        if settling.has_transaction:
            return max(now, self._next_at)
        refused_at = settling.refusals.next_at
        due_at = self._others_due_at(now) if settling.waits else None
        if refused_at is not None:
            due_at = max(now, refused_at) if due_at is None else min(due_at, max(now, refused_at))
        return self._next_at if due_at is None else max(due_at, self._next_at)

    def _others_due_at(self, now: float) -> float:
        """When what was not refused is due."""
        state = self._state
        settling = state.settling
        # Where memory is full, what is settled makes room: nothing is read meanwhile.
        is_full = settling.rows >= state.limits.batch_rows or state.is_crowded
        if settling.is_pressing or is_full or state.draining or settling.first_at is None:
            # What a recovery found was delivered long ago, and an ended retry may come alone: they have no beginning.
            return now
        return settling.first_at + SETTLE_DELAY_SECONDS

    def deadlines(self, now: float) -> list[float]:
        """Return when something is to be settled next."""
        settling = self._state.settling
        return [] if settling.under_way is not None or settling.is_empty else [self._due_at(now)]

    def settle(self, now: float) -> None:
        """Begin the next settlement where there is one and it is time."""
        state = self._state
        settling = state.settling
        if settling.under_way is not None or settling.is_empty or now < self._due_at(now):
            return
        settlement = settling.take(now)
        if settlement is not None and state.token is not None:
            if state.read_before_loss:
                settlement = self._of_events(settlement)
            self._began_at = now
            state.ports.store.begin_settle(settlement, state.token)

    def _of_events(self, settlement: Settlement) -> Settlement:
        """Where a connection was lost, rows are settled only if they are still the events that were read."""
        state = self._state
        records = state.ledger.records
        state.read_before_loss = {record_id for record_id in state.read_before_loss if record_id in records}
        if settlement.delivered_pieces or settlement.dead_pieces:
            return settlement
        delivered = _pieces([records.get(record_id) for record_id in settlement.delivered_ids])
        dead = _pieces([records.get(record_id) for record_id, _ in settlement.dead])
        return state.settling.of_events(replace(settlement, delivered_pieces=delivered, dead_pieces=dead))

    def on_settled(self, event: Settled) -> bool:
        """Let go what was written. Return False when the lease is another daemon's by now: nothing was written."""
        state = self._state
        if event.settlement is not state.settling.under_way:
            return True
        state.settling.done()
        self._answered()
        if event.fenced:
            reason = MOVED if event.moved else RIVAL
            state.ports.observer.event("settle_fenced", rows=event.settlement.rows, reason=reason)
            return False
        self._consider_aside()
        now = state.ports.clock.monotonic()
        settlement = event.settlement
        if event.matched_rows < settlement.rows and not settlement.again:
            state.ports.observer.event("settle_mismatch", expected=settlement.rows, matched=event.matched_rows)
        state.ports.observer.phase("settle", now - self._began_at, settlement.rows)
        if settlement.transaction is not None:
            state.ports.publisher.settled(settlement.transaction)
        self._let_go(self._delivered(settlement))
        for record_id, retry in settlement.retries:
            self._on_retry_written(record_id, retry, now)
        for record_id, death in settlement.dead:
            self._on_death_written(record_id, death, None, now)
        written = [state.settling.letter_written(dead_letter_id) for dead_letter_id, *_ in settlement.replayed]
        self._let_go([replayed_id for replayed_id in written if replayed_id is not None])
        for dead_letter_id, death, _ in settlement.died_again:
            self._on_death_written(state.settling.letter_written(dead_letter_id), death, dead_letter_id, now)
        if settlement.storms:
            state.lanes.storms_noted([pattern for pattern, _ in settlement.storms])
        if settlement.retries:
            state.wishes.cursors.retry = None
        self._restate()
        return True

    def _delivered(self, settlement: Settlement) -> Collection[int]:
        """Return what was delivered of what was written. Of an owner before, a row and a dead letter may have one id:
        it stays in memory while one of them is not written, see `keep_from_reading`.
        """
        if not settlement.is_recovered:
            return settlement.delivered_ids
        unwritten = self._state.settling.known_ids()
        return [record_id for record_id in settlement.outbox_ids if record_id not in unwritten]

    def _restate(self) -> None:
        """Have later transactions state what is set aside, once all of it was found."""
        rows = self._state.settling.refusals.new_rows()
        if rows is not None:
            self._state.ports.publisher.restate(rows)

    def _consider_aside(self) -> None:
        """Say so where the last row that was set aside is settled."""
        if self._state.settling.refusals.ended():
            self._told_aside_at = float("-inf")
            self._state.ports.observer.event("unsettled_rows_settled")

    def _answered(self) -> None:
        """The session works, and so does the table."""
        was_told = self._failures or self._refusals >= REFUSALS_MAX
        self._failures = self._refusals = 0
        self._is_refusal_told = self._is_whole_refused = False
        if self._state.settling.refusals.is_empty:
            self._told_refusal_at = float("-inf")
        if was_told:
            self._state.ports.observer.database_answered(WRITES)

    def _let_go(self, record_ids: Collection[int]) -> None:
        """What became of these is written: they leave memory, and nobody is in doubt of them."""
        self._state.ledger.leave(record_ids)
        if self._state.in_doubt:
            self._state.in_doubt.difference_update(record_ids)

    def _on_retry_written(self, record_id: int, retry: Retry, now: float) -> None:
        state = self._state
        record = state.ledger.records.get(record_id)
        if record is None:
            return
        former = state.aftermath.histories.by_id.pop(record_id, NO_HISTORY)
        # One of a storm has no attempt counted, and is in `retry` all the same.
        waits_since = now if former.waits_since is None else former.waits_since
        history = FailureHistory(retry.attempts, waits_since=waits_since)
        gate_key = state.gate.key_of(record)
        due_at = now + retry.delay_seconds
        name = retry.fault.name
        state.ledger.leave([record_id])
        state.held.add(HeldRecord.of(record, gate_key, history, HeldState.SCHEDULED, name, since=now, due_at=due_at))

    def _on_death_written(
        self, record_id: int | None, death: DeadLetter, dead_letter_id: int | None, now: float
    ) -> None:
        state = self._state
        record = state.ledger.records.get(record_id) if record_id is not None else None
        if record is None:
            return
        state.aftermath.histories.forget(record.id)
        self._let_go([record.id])
        gate_key = state.gate.key_of(record)
        if gate_key is None:
            return
        if death.holds_key:
            history = FailureHistory(death.attempts, dead_letter_id)
            name = death.fault.name
            state.held.add(HeldRecord.of(record, gate_key, history, HeldState.DEAD, name, since=now))
            return
        following = state.gate.release(gate_key, record.id)
        if following is not None:
            state.ready.append(following)

    def on_failed(self, event: SettleFailed) -> None:
        """Where it was refused, give it again in parts. Else whether it was committed is unknown: give it again, whole,
        before any other, after a pause that grows.
        """
        state = self._state
        if event.settlement is not state.settling.under_way:
            return
        if event.refused and event.settlement.entries:
            self._on_refused(event)
            self._restate()
            return
        state.settling.failed(replace(event.settlement, again=True))
        state.connection_lost()
        self._failures += 1
        self._next_at = state.ports.clock.monotonic() + failure_pause_seconds(self._failures)
        if self._failures == 1:
            state.ports.observer.event("database_failed", during="settle", cause=event.message)

    def _on_refused(self, event: SettleFailed) -> None:
        state = self._state
        now = state.ports.clock.monotonic()
        row = progress_row(state, event.settlement)
        # Of what is written already, its parts will find nothing to change.
        refused = replace(event.settlement, again=True) if event.in_part else event.settlement
        was_aside = state.settling.refusals.tries_aside
        if state.settling.refused(refused, now, row):
            keep_from_reading(state, event.settlement)
            self._tell_aside(event, now)
        if was_aside:
            # It has pauses of its own.
            return
        self._refusals += 1
        self._is_whole_refused |= not event.settlement.is_part
        if self._refusals >= REFUSALS_MAX:
            self._next_at = now + 1 / TRIES_A_SECOND_MAX
            self._tell_refusal(event, now)

    def _tell_refusal(self, event: SettleFailed, now: float) -> None:
        """Say once that nothing is settled; where some is after all, and then nothing again, not before a minute. Where
        only parts are refused, what else was with them was settled.
        """
        if self._is_whole_refused and not self._is_refusal_told and now - self._told_refusal_at >= ASIDE_TOLD_SECONDS:
            self._is_refusal_told, self._told_refusal_at = True, now
            self._state.ports.observer.event("database_failed", during=REFUSED, cause=event.message)

    def _tell_aside(self, event: SettleFailed, now: float) -> None:
        """Name the row: nobody else can find out why it stays pending though it was sent. That all else waits for such
        rows is told at once.
        """
        refusals, waits = self._state.settling.refusals, self._state.waits_for_refused(now)
        refusals.last_told = f"{_named(event.settlement)}: {event.message}"
        if now - self._told_aside_at < ASIDE_TOLD_SECONDS and (self._is_wait_told or not waits):
            return
        self._told_aside_at, self._is_wait_told = now, waits
        is_known = self._state.pipelined and event.settlement.is_in_progress_records
        self._state.ports.observer.event(
            "row_not_settled",
            row=_named(event.settlement),
            later="not sent again" if is_known else "sent again",
            cause=event.message,
            rows=refusals.rows_aside,
            others="wait until these are settled" if waits else "go on",
        )


def _named(settlement: Settlement) -> str:
    """Name the one outcome that the settlement has."""
    ids = [*settlement.outbox_ids, *settlement.out_of_retry]
    letters = [entry[0] for entry in (*settlement.replayed, *settlement.died_again)]
    of_rows = [entry[0] for entry in settlement.recovered_replays]
    for name, found in (("the dead letter of the row", of_rows), ("the row", ids), ("the dead letter", letters)):
        if found:
            return f"{name} {found[0]}"
    return f"the hold of the topic {settlement.storms[0][0]}"


def _pieces(records: Sequence[Record | None]) -> list[int | None]:
    """Return what tells each record's event from others; None where it is not in memory."""
    pieces = iter(event_pieces([record.event_id for record in records if record is not None]))
    return [None if record is None else next(pieces) for record in records]
