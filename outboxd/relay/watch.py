"""The watch: records that have been with the producer for too long are systemic, since the producer itself has no
time-out.

Ten times in ten seconds it notes the oldest record in memory, and that of each topic of which a quarter of what may be
in memory is in flight; that of every topic where memory is full, or anything stays the same: one stuck topic must not
hide another. A topic whose oldest record stays the same for ten seconds is stuck.

Mostly one partition is: its leader is away or frozen. What is stuck there is told from what is only slow by whether
anything of its partition was delivered (see `stuck_partitions`), and such partitions are held after some seconds. Where
that cannot be told, what waits in memory behind the stuck records leaves it first, where memory is full, and what else
the topic has goes on; where that frees nothing, or where what is with the producer takes too much, the topic is held.
What is stuck is partly counted beside the limits, so that other partitions and topics go on.
"""

from __future__ import annotations

from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.report.thens import GOES_ON_BY_ANOTHER, LEFT, MOVES
from outboxd.relay.state import State

OUTAGE_SECONDS = 30.0
TOLD_MAX = 10
"""Of so many topics at a time it is told that they are stuck: where no broker answers all are."""
NO_TROUBLE = (
    "nothing; `outboxd check` says whether the topic is there, with leaders and enough replicas, else look at the "
    "brokers that lead it"
)
LOOKS = 10
"""So many looks are taken in the time after which a topic is taken for stuck."""
LARGE_SHARE = 4
"""A stuck topic is put on hold once one part in so many of what may be in memory is in flight for it."""
SUSPECT_LOOKS = 5
"""Records that were with the producer so many looks ago, and still are while something is stuck, are stuck too."""
PARTITION_LOOKS = 3
"""The same of records in a partition where nothing was delivered meanwhile,"""
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
        self._told: dict[str, str] = {}
        """The topics of which people were told that they are stuck, each with what was said of the connections then."""
        self._explained: str | None = None
        """One that is stuck and of which they were told another reason, where there is no other."""
        self._sent_since: dict[int, float] = {}
        """Of each record that is with the producer: since when it is known to be there, while anything is still."""
        self.still_topics: frozenset[str] = frozenset()
        """The topics of which the producer has had something for so long that no restart of a broker explains it. Other
        threads may read it."""
        self._owing_since: dict[str, float] = {}
        """Of each topic of fire-and-forget records: since when the producer has owed reports at every look."""

    def look(self, now: float) -> None:
        """Look, where it is time again."""
        if now < self.next_at:
            return
        state = self._state
        self.next_at = now + self._seconds(1)
        filling = self._filling()
        # Where memory is full, nothing of any topic is read because of them, however small they are.
        large = self._flying() if state.is_crowded else filling
        watched = self._watched()
        explained = set() if self._explained is None else {self._explained}
        while_still = self._flying() if self._still_for(1, now) else set()
        self._note(large | watched | self._told.keys() | explained | while_still, now)
        stuck = self._still_for(LOOKS, now)
        sent = self._note_sent(large | watched | self._oldest.keys(), now)
        self._let_go(watched, stuck, sent, now)
        self._tell(stuck)
        self._hold_partitions(sent, large, now)
        relieved = self._relieve(stuck & large - self._held() - filling, now)
        for topic in stuck & large - self._held() - relieved:
            self._hold_whole(topic, now)
        self._count_beside(stuck & (self._watched() | large) - relieved)

    def transaction_ended(self, now: float) -> None:
        """One transaction at a time has the records of all topics, so that nothing is stuck while they end. Where many
        rows are refused, one batch is many transactions, and the first of its records may wait for the last of them.
        """
        self._oldest = {topic: (record_id, now) for topic, (record_id, _) in self._oldest.items()}

    @property
    def stalled(self) -> dict[str, str]:
        """The topics of which people were told that their oldest record is stuck, each with why, while that is so and
        nothing else says that the topic waits.
        """
        held = self._state.topics.held
        return {topic: cause for topic, cause in self._told.items() if topic not in held}

    def _seconds(self, looks: int) -> float:
        """Return how long so many looks are."""
        return self._state.limits.stall_seconds * looks / LOOKS

    def _watched(self) -> set[str]:
        """Return the topics of which something is held on age."""
        return {topic for topic, breaker in self._state.lanes.breakers.open.items() if breaker.is_watched}

    def _held(self) -> set[str]:
        """Return the topics that wait as a whole, whatever for, and those of which partitions do."""
        state = self._state
        return {*state.lanes.breakers.open, *state.topics.held}

    def _flying(self) -> set[str]:
        """Return the topics of which the producer has something."""
        return {lane.topic for lane in self._state.lanes.topics() if lane.in_flight}

    def _still_for(self, looks: int, now: float) -> set[str]:
        """Return the topics whose oldest record has been the same for so many looks."""
        seconds = self._seconds(looks)
        return {topic for topic, (_, since) in self._oldest.items() if now - since >= seconds}

    def _let_go(self, watched: set[str], stuck: set[str], sent: dict[str, list[Record]], now: float) -> None:
        """Let go what moves."""
        state = self._state
        for topic in watched:
            if topic in state.partitions:
                state.stuck.review(topic, sent.get(topic, ()), now)
            elif topic not in stuck:
                state.aftermath.holding.close_breaker(topic, now)

    def _hold_partitions(self, sent: dict[str, list[Record]], large: set[str], now: float) -> None:
        """Hold partitions that are stuck: of large topics that are still, of those of which some are held, and of those
        that wait as a whole though others of their partitions deliver what is left. A topic of which all are stuck
        waits as a whole.
        """
        state = self._state
        since = now - self._seconds(PARTITION_LOOKS)
        still = self._still_for(PARTITION_STILL_LOOKS, now) & large - self._held()
        on_age = self._watched()
        whole = {topic for topic in on_age - state.stuck.topics if state.stuck.moves(topic, since)}
        for topic in still | whole | (on_age & state.stuck.topics):
            long_sent = [each for each in sent.get(topic, ()) if self._sent_since[each.id] <= since]
            found = state.stuck.find(topic, long_sent, since) if long_sent else None
            if found is None or state.topics.held.get(topic, set()) - {HoldReason.BREAKER}:
                continue
            if not state.stuck.are_all(topic, found):
                if topic in whole:
                    state.aftermath.holding.close_breaker(topic, now)
                state.stuck.hold(topic, found, sent[topic], now)
            elif topic in state.partitions:
                self._hold_whole(topic, now)

    def _hold_whole(self, topic: str, now: float) -> None:
        fault = own_fault("IN_FLIGHT_TOO_OLD")
        self._state.aftermath.holding.open_breaker(topic, fault, fault.meaning, now)

    def _count_beside(self, topics: set[str]) -> None:
        """Let what is stuck in these topics, and in held partitions of any, take little room from all else."""
        state = self._state
        records = state.ledger.of_topics(topics - state.stuck.topics) + state.stuck.stuck_records()
        state.ledger.count_beside(records, state.limits.fetch_rows_min, state.limits.fetch_bytes_min)

    def _filling(self) -> set[str]:
        """Return the topics that have one part in LARGE_SHARE of what may be in memory with the producer. How many
        bytes that is, is taken from the mean of all records.
        """
        ledger = self._state.ledger
        rows_max = min(ledger.rows_max, ledger.rows_that_fit)
        lanes = self._state.lanes.topics()
        return {lane.topic for lane in lanes if lane.in_flight and lane.in_flight * LARGE_SHARE >= rows_max}

    def _note_sent(self, topics: set[str], now: float) -> dict[str, list[Record]]:
        """While something is still: note what is with the producer, to know later what was there for long. Return that
        of these topics, and have it noted where records of theirs are delivered.
        """
        state, known = self._state, self._sent_since
        sent: dict[str, list[Record]] = {}
        self._sent_since = {}
        state.stuck.watch(topics if self._still_for(1, now) or state.stuck.topics else ())
        still = self._owing(now)
        if state.stuck.is_watching:
            for record in state.with_producer():
                since = self._sent_since[record.id] = known.get(record.id, now)
                if now - since >= OUTAGE_SECONDS:
                    still.add(record.topic)
                if record.topic in topics:
                    sent.setdefault(record.topic, []).append(record)
        self.still_topics = frozenset(still)
        return sent

    def _owing(self, now: float) -> set[str]:
        """Return the topics of fire-and-forget records for which the producer has owed reports all the time. They leave
        memory when they are sent, so that nobody knows which ones are stuck: a topic that is busy is among these.
        """
        lanes = self._state.lanes
        owing = [topic for topic in lanes.unconfirmed_topics if lanes[topic].in_flight]
        self._owing_since = {topic: self._owing_since.get(topic, now) for topic in owing}
        return {topic for topic, since in self._owing_since.items() if now - since >= OUTAGE_SECONDS}

    def _relieve(self, topics: set[str], now: float) -> set[str]:
        """Drop from memory what waits behind stuck records of these topics. Return those of which anything did."""
        if not topics:
            return set()
        gate, until = self._state.gate, now - self._seconds(SUSPECT_LOOKS)
        suspects = {record_id for record_id, since in self._sent_since.items() if since <= until}
        relieved = {topic for topic in topics if gate.defer_behind(topic, suspects)}
        self._state.ledger.forget_dropped(gate)
        return relieved

    def nothing_moves(self, now: float) -> bool:
        """Whether a topic has been stuck for so long that no restart of a broker explains it, and nothing of any topic
        was delivered since.
        """
        stuck = self._told or ([] if self._explained is None else [self._explained])
        last_delivered_at = self._state.lanes.last_delivered_at
        times = [self._oldest[topic][1] for topic in stuck]
        return any(now - since >= OUTAGE_SECONDS and last_delivered_at <= since for since in times)

    def _note(self, topics: set[str], now: float) -> None:
        """Note the oldest record of all, and that of each of these topics."""
        noted: dict[str, tuple[int, float]] = {}
        missing = set(topics)
        # What is with the producer of a topic on hold may be there for long, and must not hide what nobody was told of.
        is_hidden = True
        # They were delivered, and only the database keeps them here.
        aside = self._state.settling.refusals.ids_aside()
        for record in self._state.ledger.records.values():
            if record.id in aside:
                continue
            is_news = is_hidden and not self._is_explained(record.topic)
            if record.topic in missing or not noted or is_news:
                former = self._oldest.get(record.topic)
                noted[record.topic] = former if former and former[0] == record.id else (record.id, now)
                missing.discard(record.topic)
                is_hidden = is_hidden and not is_news
            if not missing and not is_hidden:
                break
        self._oldest = noted

    def _tell(self, stuck: set[str]) -> None:
        """Say once that a topic is stuck, and once that it is not any more. What only waits for the database is not.

        A probe that waits in a topic on hold is no news: that of a missing topic does so for longer than this.
        """
        state, self._explained = self._state, None
        self._tell_over(self._told.keys() - stuck, MOVES)
        settling = state.settling.known_ids() if stuck else set()
        found = [topic for topic in self._oldest if topic in stuck and self._oldest[topic][0] not in settling]
        news = [topic for topic in found if topic not in self._told and not self._is_explained(topic)]
        cause = (state.ports.publisher.connection_trouble() or NO_TROUBLE) if news else ""
        # A transaction that stands still keeps the records of all topics: one of them says it.
        room = (1 if state.pipelined else TOLD_MAX) - len(self._told)
        for topic in news[:room]:
            self._told[topic] = cause
            state.ports.observer.event("in_flight_stalled", topic=topic, in_memory=len(state.ledger), cause=cause)
        if found and not self._told:
            self._explained = found[0]

    def end(self, *, goes_on: bool) -> None:
        """What the producer has is not watched any more: it goes on with another one, or is left to the next owner. As
        whoever was told that something is stuck has to hear, and hears again where that lasts.
        """
        self._tell_over(set(self._told), GOES_ON_BY_ANOTHER if goes_on else LEFT)

    def _tell_over(self, topics: set[str], then: str) -> None:
        state = self._state
        for topic in [topic for topic in self._told if topic in topics]:
            del self._told[topic]
            state.ports.observer.event("in_flight_moving", topic=topic, then=then, in_memory=len(state.ledger))

    def _is_explained(self, topic: str) -> bool:
        """Whether the topic is on hold, and for another reason than that nothing moves."""
        breaker = self._state.lanes.breakers.open.get(topic)
        return breaker is not None and not breaker.is_watched
