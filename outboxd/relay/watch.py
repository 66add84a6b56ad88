"""The watch: records that have been with the producer for too long are systemic, since the producer itself has no
time-out.

Once a second it notes the oldest record in memory, and that of each topic of which a quarter of what may be in memory
is in flight, or of every topic where memory is full: one stuck topic must not hide another. A topic whose oldest record
stays the same for ten seconds is stuck.

Mostly one partition is: its leader is away or frozen. Which keys go there shows by their records, which get no report
while those of others do. So what waits in memory behind the stuck records leaves it first, where memory is full, and
what else the topic has goes on. Where that frees nothing, or where what is with the producer takes too much, the topic
is held, and what it has in memory is partly counted beside the limits, so that other topics go on.
"""

from __future__ import annotations

from outboxd.policy.faults import own_fault
from outboxd.relay.state import State

WATCH_SECONDS = 1.0
STALL_SECONDS = 10.0
OUTAGE_SECONDS = 30.0
LARGE_SHARE = 4
"""A stuck topic is put on hold once one part in so many of what may be in memory is in flight for it."""
SUSPECT_SECONDS = STALL_SECONDS / 2
"""Records that were with the producer so long ago, and still are while something is stuck, are stuck too."""


class Watch:
    """Holds topics that are stuck and large, and lets them go once they move."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self.next_at = 0.0
        self._oldest: dict[str, tuple[int, float]] = {}
        """By topic: the id of its oldest record in memory, and since when it is that."""
        self._stalled_topic: str | None = None
        """The topic of which it was told that nothing moves."""
        self._sent: tuple[set[int], set[int]] = set(), set()
        """The keyed records that were with the producer the last two times that this was noted."""
        self._sent_at = float("-inf")

    def look(self, now: float) -> None:
        """Look once a second."""
        if now < self.next_at:
            return
        self.next_at = now + WATCH_SECONDS
        state = self._state
        # Where memory is full, nothing of any topic is read because of them, however small they are.
        large = self._taking(1 if state.is_crowded else state.limits.max_in_flight_rows)
        watched = {topic for topic, breaker in state.lanes.breakers.open.items() if breaker.is_watched}
        told = set() if self._stalled_topic is None else {self._stalled_topic}
        self._note(large | watched | told, now)
        stuck = {topic for topic, (_, since) in self._oldest.items() if now - since >= STALL_SECONDS}
        for topic in watched - stuck:
            state.aftermath.holding.close_breaker(topic, now)
        self._tell(stuck)
        self._note_sent(now)
        relieved = self._relieve(stuck & large - watched - self._taking(state.limits.max_in_flight_rows))
        fault = own_fault("IN_FLIGHT_TOO_OLD")
        for topic in stuck & large - watched - relieved:
            state.aftermath.holding.open_breaker(topic, fault, fault.meaning, now)
        limits = state.limits
        state.ledger.count_beside(stuck & (watched | large) - relieved, limits.fetch_rows_min, limits.fetch_bytes_min)

    def _taking(self, rows_min: int) -> set[str]:
        """Return the topics that have one part in LARGE_SHARE of so many records, or more, with the producer."""
        lanes = self._state.lanes.topics()
        return {lane.topic for lane in lanes if lane.in_flight and lane.in_flight * LARGE_SHARE >= rows_min}

    def _note_sent(self, now: float) -> None:
        """While something is still: note what is with the producer, to know later what was there for long."""
        if all(now - since < SUSPECT_SECONDS for _, since in self._oldest.values()):
            self._sent, self._sent_at = (set(), set()), float("-inf")
        elif now - self._sent_at >= SUSPECT_SECONDS:
            self._sent, self._sent_at = (self._sent[1], self._state.gate.first_ids()), now

    def _relieve(self, topics: set[str]) -> set[str]:
        """Drop from memory what waits behind stuck records of these topics. Return those of which anything did."""
        gate = self._state.gate
        relieved = {topic for topic in topics if gate.defer_behind(topic, self._sent[0])}
        self._state.forget_dropped()
        return relieved

    def nothing_moves(self, now: float) -> bool:
        """Whether a topic has been stuck for so long that no restart of a broker explains it, and nothing of any topic
        was delivered since.
        """
        if self._stalled_topic is None:
            return False
        since = self._oldest[self._stalled_topic][1]
        return now - since >= OUTAGE_SECONDS and self._state.lanes.last_delivered_at <= since

    def _note(self, topics: set[str], now: float) -> None:
        """Note the oldest record of all, and that of each of these topics."""
        noted: dict[str, tuple[int, float]] = {}
        missing = set(topics)
        # They were delivered, and only the database keeps them here.
        aside = self._state.settling.refusals.ids_aside()
        for record in self._state.ledger.records.values():
            if record.id in aside:
                continue
            if record.topic in missing or not noted:
                former = self._oldest.get(record.topic)
                noted[record.topic] = former if former and former[0] == record.id else (record.id, now)
                missing.discard(record.topic)
            if not missing:
                break
        self._oldest = noted

    def _tell(self, stuck: set[str]) -> None:
        """Say once that a topic is stuck, and once that it is not any more. What only waits for the database is not."""
        state = self._state
        if self._stalled_topic is not None and self._stalled_topic not in stuck:
            self._stalled_topic = None
            state.ports.observer.event("in_flight_moving", in_memory=len(state.ledger))
        if self._stalled_topic is None and stuck:
            settling = state.settling.known_ids()
            topic = next((topic for topic in stuck if self._oldest[topic][0] not in settling), None)
            if topic is not None:
                self._stalled_topic = topic
                state.ports.observer.event("in_flight_stalled", topic=topic, in_memory=len(state.ledger))
