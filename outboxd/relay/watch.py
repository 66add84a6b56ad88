"""The watch: records that have been with the producer for too long are systemic, since the producer itself has no
time-out.

Once a second it notes the oldest record in memory, and that of each topic of which a quarter of what may be in memory
is in flight, or of every topic where memory is full: one stuck topic must not hide another. A topic whose oldest record
stays the same for ten seconds is stuck.

Mostly one partition is: its leader is away or frozen. Which keys go there shows by their records, which get no report
while those of others do. So what waits in memory behind the stuck records leaves it first, where memory is full, and
what else the topic has goes on. Where that frees nothing, or where what is with the producer takes too much, the
partitions of the stuck records are held, if it can be told which these are, or else the topic; and what these have in
memory is partly counted beside the limits, so that the other partitions and topics go on. Partitions are held sooner
than topics, after some seconds, since that costs little.
"""

from __future__ import annotations

from outboxd.policy.faults import own_fault
from outboxd.relay.state import State

OUTAGE_SECONDS = 30.0
LOOKS = 10
"""So many looks are taken in the time after which a topic is taken for stuck."""
LARGE_SHARE = 4
"""A stuck topic is put on hold once one part in so many of what may be in memory is in flight for it."""
SUSPECT_LOOKS = 5
"""Records that were with the producer so many looks ago, and still are while something is stuck, are stuck too."""
PARTITION_LOOKS = 3
"""The same where only partitions are to be held, which costs little if they were slow only,"""
PARTITION_STILL_LOOKS = 4
"""once their topic's oldest record has been the same for so many looks."""


class Watch:
    """Holds topics that are stuck and large, or their partitions, and lets them go once they move."""

    def __init__(self, state: State) -> None:
        """`state` is the relay's memory of this ownership."""
        self._state = state
        self.next_at = 0.0
        self._oldest: dict[str, tuple[int, float]] = {}
        """By topic: the id of its oldest record in memory, and since when it is that."""
        self._stalled_topic: str | None = None
        """The topic of which it was told that nothing moves."""
        self._sent_since: dict[int, float] = {}
        """Of each keyed record that is with the producer: since when it is known to be there, while anything is
        still.
        """

    def look(self, now: float) -> None:
        """Look once a second."""
        if now < self.next_at:
            return
        state = self._state
        self.next_at = now + self._seconds(1)
        filling = self._filling()
        # Where memory is full, nothing of any topic is read because of them, however small they are.
        large = {lane.topic for lane in state.lanes.topics() if lane.in_flight} if state.is_crowded else filling
        watched = self._watched()
        told = set() if self._stalled_topic is None else {self._stalled_topic}
        self._note(large | watched | told, now)
        stuck = self._still_for(LOOKS, now)
        partly = self._release(watched, stuck, now)
        self._tell(stuck)
        self._note_sent(now)
        for topic in partly | (self._still_for(PARTITION_STILL_LOOKS, now) & large - watched):
            self._hold_partitions(topic, now)
        relieved = self._relieve(stuck & large - self._watched() - filling, now)
        fault = own_fault("IN_FLIGHT_TOO_OLD")
        for topic in stuck & large - self._watched() - relieved:
            state.aftermath.holding.open_breaker(topic, fault, fault.meaning, now)
        self._count_beside(stuck & (watched | large) - relieved)

    def _seconds(self, looks: int) -> float:
        """Return how long so many looks are."""
        return self._state.limits.stall_seconds * looks / LOOKS

    def _watched(self) -> set[str]:
        """Return the topics of which something is held on age."""
        return {topic for topic, breaker in self._state.lanes.breakers.open.items() if breaker.is_watched}

    def _still_for(self, looks: int, now: float) -> set[str]:
        """Return the topics whose oldest record has been the same for so many looks."""
        seconds = self._seconds(looks)
        return {topic for topic, (_, since) in self._oldest.items() if now - since >= seconds}

    def _release(self, watched: set[str], stuck: set[str], now: float) -> set[str]:
        """Let go what moves. Return the topics of which partitions only are held still."""
        holding = self._state.aftermath.holding
        for topic in watched:
            is_partly = holding.stuck.holds_any_of(topic)
            if is_partly:
                holding.stuck.release_done(topic)
            if not (holding.stuck.holds_any_of(topic) if is_partly else topic in stuck):
                holding.close_breaker(topic, now)
        return set(holding.stuck.topics())

    def _hold_partitions(self, topic: str, now: float) -> None:
        """Hold the partitions of the topic that are found stuck, if these are not all of them."""
        holding = self._state.aftermath.holding
        found = holding.stuck.find(topic, self._sent_for(PARTITION_LOOKS, now))
        if not found:
            return
        if not holding.stuck.are_all(topic, found):
            holding.hold_partitions(topic, found, now)
        elif holding.stuck.holds_any_of(topic):
            # The others were before.
            fault = own_fault("IN_FLIGHT_TOO_OLD")
            holding.open_breaker(topic, fault, fault.meaning, now)

    def _count_beside(self, topics: set[str]) -> None:
        """Let what is stuck in these topics, and in held partitions of any, take little room from all else."""
        state, stuck = self._state, self._state.aftermath.holding.stuck
        partly = stuck.topics()
        records = state.ledger.of_topics(topics.difference(partly))
        for topic in partly:
            records += stuck.records_of(topic)
        state.ledger.count_beside(records, state.limits.fetch_rows_min, state.limits.fetch_bytes_min)

    def _filling(self) -> set[str]:
        """Return the topics that have one part in LARGE_SHARE of what may be in memory with the producer. How many
        bytes that is, is taken from the mean of all records.
        """
        ledger = self._state.ledger
        rows_max = min(ledger.rows_max, ledger.rows_that_fit)
        lanes = self._state.lanes.topics()
        return {lane.topic for lane in lanes if lane.in_flight and lane.in_flight * LARGE_SHARE >= rows_max}

    def _note_sent(self, now: float) -> None:
        """While something is still: note what is with the producer, to know later what was there for long."""
        if not self._still_for(1, now):
            self._sent_since = {}
            return
        known = self._sent_since
        self._sent_since = {record_id: known.get(record_id, now) for record_id in self._state.gate.first_ids()}

    def _sent_for(self, looks: int, now: float) -> set[int]:
        """Return the keyed records that have been with the producer for so many looks."""
        until = now - self._seconds(looks)
        return {record_id for record_id, since in self._sent_since.items() if since <= until}

    def _relieve(self, topics: set[str], now: float) -> set[str]:
        """Drop from memory what waits behind stuck records of these topics. Return those of which anything did."""
        gate = self._state.gate
        suspects = self._sent_for(SUSPECT_LOOKS, now) if topics else set()
        relieved = {topic for topic in topics if gate.defer_behind(topic, suspects)}
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
