"""Recovering: exactly-once delivery's beginning of an ownership.

    loaded ──▶ the producer before is fenced ──▶ its progress records are read ──▶ their rows are settled ──▶ fetch

Nothing is read before, since the database still shows as pending what the owner before committed and did not settle.
"""

from __future__ import annotations

from outboxd.relay.ports import Loaded, Recovered, RecoverFailed
from outboxd.relay.state import State

PAUSE_SECONDS = 1.0
TRIED_SECONDS = 20.0
"""A recovery that failed for so long is not given up, but somebody may want to know."""
TOLD_SECONDS, NEWS_SECONDS = 60.0, 10.0
"""So often the log tells why it fails, and so soon where that is another reason than before."""


class Recovering:
    """What stands between the load and the first fetch."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self._loaded: Loaded | None = None
        self._again_at: float | None = None
        self._recovered = self._is_settled = False
        self._failed_at: float | None = None
        self._began_at: float | None = None
        self.failure = ""
        """Why it failed last; empty once it did not."""
        self._told, self._told_at = "", float("-inf")

    @property
    def is_done(self) -> bool:
        """Whether fetching may begin: what was recovered is settled."""
        if self._recovered and not self._is_settled:
            # What was refused waits in memory, lest it be sent again. After that, reading waits for no settlement.
            self._is_settled = self._state.settling.is_written
        return self._loaded is None or self._is_settled

    @property
    def is_failing(self) -> bool:
        """Whether it has failed for a while, and nothing else was heard since."""
        if self._failed_at is None or self._began_at is None:
            return False
        return self._failed_at - self._began_at >= TRIED_SECONDS

    def deadlines(self) -> list[float]:
        """Return when it is to be begun again; while it is under way its answer comes by itself."""
        return [] if self._again_at is None else [self._again_at]

    def begin(self, loaded: Loaded) -> None:
        """Have the owner before fenced, and its progress records read."""
        self._loaded = loaded
        if self._began_at is None:
            self._began_at = self._state.ports.clock.monotonic()
        self._state.ports.publisher.begin_recover(loaded.settled_transaction, loaded.lineage)

    def begin_again(self, now: float) -> None:
        """Begin anew what failed, when its pause is over."""
        if self._again_at is not None and now >= self._again_at and self._loaded is not None:
            self._again_at = None
            self.begin(self._loaded)

    def take(self, event: Recovered | RecoverFailed) -> None:
        """Take the answer; one to an ownership that ended means nothing."""
        if self._loaded is None:
            return
        if isinstance(event, Recovered):
            self._on_recovered(event)
        else:
            self._on_failed(event)

    def _on_failed(self, event: RecoverFailed) -> None:
        """No broker answered, or the topic could not be read: pause."""
        state = self._state
        self._failed_at = state.ports.clock.monotonic()
        self._again_at = self._failed_at + PAUSE_SECONDS
        self.failure = event.message
        if self._failed_at - self._told_at >= (TOLD_SECONDS if event.message == self._told else NEWS_SECONDS):
            self._told, self._told_at = event.message, self._failed_at
            state.ports.observer.event("recovery_failed", cause=event.message)

    def _on_recovered(self, event: Recovered) -> None:
        """Settle what was committed and not settled."""
        state = self._state
        settling = state.settling
        self._recovered, self._failed_at, self.failure = True, None, ""
        for row in event.rows:
            held = state.held.by_id.get(row.outbox_id)
            if row.is_replay:
                # By the row's id, since a new owner does not know every dead letter that is replayed.
                settling.recovered_replays.append(
                    (row.outbox_id, row.partition, row.offset, row.event_piece, row.content_piece)
                )
            else:
                settling.ids.append(row.outbox_id)
                settling.partitions.append(row.partition)
                settling.offsets.append(row.offset)
                settling.pieces.append(row.event_piece)
            if held is None:
                continue
            if not row.is_replay:
                settling.out_of_retry(row.outbox_id)
            if held.is_replay != row.is_replay:
                # An id that was given again: a dead letter of it goes on holding its key, and so does a retry.
                continue
            state.held.remove(row.outbox_id)
            if held.gate_key is not None:
                state.gate.release(held.gate_key, row.outbox_id)
        if event.rows:
            settling.mark(event.number)
        state.ports.observer.event("recovered", transaction=event.number, rows=len(event.rows))
