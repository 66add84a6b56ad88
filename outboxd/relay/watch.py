"""The watch: records that have been with the producer for too long are systemic, since the producer itself has no
time-out.
"""

from __future__ import annotations

from outboxd.policy.faults import own_fault
from outboxd.relay.state import State

WATCH_SECONDS = 1.0
STALL_SECONDS = 10.0


class Watch:
    """Looks once a second at the oldest record in memory."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self.next_at = 0.0
        self._oldest_id: int | None = None
        self._oldest_since = 0.0

    def look(self, now: float) -> None:
        """Hold the topic of a record that is stuck, where it takes more than a quarter of what may be in flight."""
        if now < self.next_at:
            return
        state = self._state
        self.next_at = now + WATCH_SECONDS
        oldest = state.ledger.oldest()
        if oldest is None or oldest.id != self._oldest_id:
            if self._oldest_id is not None and now - self._oldest_since >= STALL_SECONDS:
                self._on_moving_again(now)
            self._oldest_id = None if oldest is None else oldest.id
            self._oldest_since = now
            return
        if now - self._oldest_since < STALL_SECONDS:
            return
        if now - self._oldest_since < STALL_SECONDS + WATCH_SECONDS:
            state.ports.observer.event("in_flight_stalled", topic=oldest.topic, in_memory=len(state.ledger))
        if state.lanes[oldest.topic].in_flight * 4 >= state.limits.max_in_flight_rows:
            self._hold(oldest.topic, now)

    def _hold(self, topic: str, now: float) -> None:
        fault = own_fault("IN_FLIGHT_TOO_OLD")
        self._state.aftermath.holding.open_breaker(topic, fault, fault.meaning, now)

    def _on_moving_again(self, now: float) -> None:
        state = self._state
        for topic, breaker in list(state.lanes.breakers.open.items()):
            if breaker.is_watched:
                state.aftermath.holding.close_breaker(topic, now)
        state.ports.observer.event("in_flight_moving", in_memory=len(state.ledger))
