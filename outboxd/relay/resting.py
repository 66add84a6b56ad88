"""Resting: how long the loop may wait, and for what. A turn with nothing due and nothing in flight waits for mail."""

from __future__ import annotations

from collections.abc import Iterable

from outboxd.relay.fetch.reading import Reading
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.settle.writing import Writing
from outboxd.relay.state import State
from outboxd.relay.watch import Watch

POLL_SLICE_SECONDS = 0.001
STILL_SECONDS = 1.0
STILL_SLICE_SECONDS = 0.01
"""Where nothing was delivered for so long, what is in flight is stuck: nobody waits for a turn each millisecond."""
LINGER_ROWS_MIN = 200
"""With fewer records in flight, it is their keys that wait, and a batch does not become fuller."""
REST_SECONDS_MAX = 0.25


class Resting:
    """The end of a turn."""

    def __init__(self, state: State, publishing: Publishing, reading: Reading, writing: Writing, watch: Watch) -> None:
        """All of these are of the present ownership."""
        self._state = state
        self._publishing = publishing
        self._reading = reading
        self._writing = writing
        self._watch = watch

    def next_deadline(self, now: float, others: Iterable[float], *, may_read: bool, may_settle: bool) -> float:
        """Return when something is to be done though nothing comes; `others` are the loop's own deadlines.

        `may_read` and `may_settle`: no statement of an ownership before is under way there.
        """
        state = self._state
        if self._goes_on:
            return now
        if state.token is None:
            return now + REST_SECONDS_MAX
        deadlines = [state.ports.lease.trusted_until(), self._watch.next_at, *others]
        if may_read:
            deadlines += self._reading.deadlines()
        if may_settle:
            deadlines += self._writing.deadlines(now)
        if self._publishing.rebuild_at is not None:
            deadlines.append(self._publishing.rebuild_at)
        if state.aftermath.undecided:
            deadlines.append(now + POLL_SLICE_SECONDS)
        return min(deadlines)

    @property
    def _goes_on(self) -> bool:
        """Records wait for the producer, and it is at once that they are given to it."""
        state = self._state
        if self._publishing.rebuild_at is not None:
            return False
        # Fire-and-forget records wait for reports of others like them; once those are in, nothing else comes for them.
        waits = state.has_ready or (state.unconfirmed and not state.in_flight)
        return bool(waits) and not state.draining and not state.pipelined

    def rest(self, now: float, next_deadline: float) -> None:
        """Wait for mail or for reports, until then. However it rests, the producer is served once a turn: its callbacks
        leave what the next turn takes.
        """
        state = self._state
        publisher, mailbox = state.ports.publisher, state.ports.mailbox
        if self._goes_on:
            # Only a full queue is worth a wait.
            publisher.poll(POLL_SLICE_SECONDS if self._publishing.is_queue_full else 0.0)
            return
        timeout_seconds = min(max(0.0, next_deadline - now), REST_SECONDS_MAX)
        # A producer that has failed may return from waiting at once.
        is_apart = state.pipelined or self._publishing.rebuild_at is not None
        rows_in_flight = 0 if is_apart else state.lanes.rows_in_flight
        if rows_in_flight:
            # Lingering for a fuller batch pays only in a backlog, and where its keys let enough of it go at once.
            comes_more = rows_in_flight >= LINGER_ROWS_MIN and self._reading.was_full
            # The client counts whole milliseconds: less would be none, and the loop would spin.
            slice_seconds = POLL_SLICE_SECONDS if timeout_seconds > 0 else 0.0
            if self._reading.awaits_reports:
                # No answer of the database can come meanwhile, so there is nothing else to be quick for.
                slice_seconds = max(slice_seconds, timeout_seconds)
            elif now - state.lanes.last_delivered_at >= STILL_SECONDS:
                slice_seconds = max(slice_seconds, min(timeout_seconds, STILL_SLICE_SECONDS))
            (publisher.poll if comes_more else publisher.flush)(slice_seconds)
        else:
            # A transaction's end comes by the mailbox. Who stands by, too, hears of its producer's failure.
            mailbox.wait(timeout_seconds)
            publisher.poll(0.0)
