"""What a relay is doing, as one frozen value that other threads may read.

`status_of` runs on the relay's thread a few times a second, so it looks at counts and at bounded numbers of entries
only. Times are ages in seconds, since the relay's own clock means nothing to anybody else.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal

from outboxd.relay.memory.held_record import HeldState

if TYPE_CHECKING:
    from outboxd.relay.relay import Relay
    from outboxd.relay.state import State

SHOWN_MAX = 100
"""So many held records, breakers, topics and pauses are shown; the counts beside them say how many there are."""

Role = Literal["owner", "standby", "draining"]


@dataclass(frozen=True, slots=True)
class HeldStatus:
    """A failed record that holds its key, for `age_seconds` since it failed first, or died."""

    outbox_id: int
    topic: str
    key: str | None
    state: str
    why: str
    attempts: int
    age_seconds: float
    due_in_seconds: float | None
    dead_letter_id: int | None


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A topic on hold for a fault that is not its rows'. `next_probe_in_seconds` is None while a probe is under way."""

    topic: str
    error_code: str
    cause: str
    open_seconds: float
    probes_failed: int
    next_probe_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class HeldTopicStatus:
    """A topic that waits, and why: `paused`, `breaker`, `storm`."""

    topic: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class PauseStatus:
    """A row of `control`."""

    topic_pattern: str
    since_ms: int
    who: str
    note: str | None


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """One look at the relay.

    `in_memory_…` counts from admission to settlement, `unsettled_…` what of it was published (bytes by the mean),
    `in_flight_rows` what of that the producer owes reports for, by topic in `in_flight_by_topic`.
    `recovery_failure` says why nothing is sent, where it cannot be read what was committed before.
    `refused_rows` are those of `settling_rows` that PostgreSQL refuses to settle, `refusal` names one of them and why;
    `waits_for_refused` says whether all else waits for them.
    `stalled_topics` are those whose oldest record gets no answer though they are not on hold, a few at most, each with
    what was said of the connections.
    `oldest_in_memory_seconds` is the age, since its creation, of the record that has been in memory for longest.
    """

    role: Role
    token: int | None
    turns: int
    in_memory_rows: int
    in_memory_bytes: int
    unsettled_rows: int
    unsettled_bytes: int
    in_flight_rows: int
    in_flight_by_topic: Mapping[str, int]
    settling_rows: int
    oldest_in_memory_seconds: float
    held_records: int
    held_keys: int
    held: Sequence[HeldStatus]
    breakers_open: int
    breakers: Sequence[BreakerStatus]
    topics_held: int
    held_topics: Sequence[HeldTopicStatus]
    pauses: Sequence[PauseStatus]
    deferred_keys: int
    deferred_topics: int
    topics: int
    seconds_since_delivery: float | None = None
    ended: str | None = None
    blocked_topics: Sequence[str] = field(default_factory=tuple)
    pauses_in_force: int = 0
    storm_holds: int = 0
    recovery_failure: str = ""
    refused_rows: int = 0
    refusal: str = ""
    waits_for_refused: bool = False
    stalled_topics: Mapping[str, str] = field(default_factory=dict)


def status_of(relay: Relay, now: float) -> RelayStatus:
    """Look at the relay, on its own thread; `now` is its monotonic clock's."""
    state = relay.state
    lanes = state.lanes.topics()
    flying = [lane for lane in lanes if lane.in_flight]
    largest = heapq.nlargest(SHOWN_MAX, flying, key=lambda lane: lane.in_flight)
    last_delivered_at = state.lanes.last_delivered_at
    oldest = state.ledger.oldest()
    settling_rows = state.settling.records
    unsettled_rows = state.lanes.rows_in_flight + len(state.aftermath.undecided) + settling_rows
    # The sizes of what waits behind others of its key are not kept apart, and there may be too many to add them up.
    unsettled_share = min(1.0, unsettled_rows / max(1, len(state.ledger)))
    return RelayStatus(
        role=_role(relay),
        token=state.token,
        turns=relay.turns,
        in_memory_rows=len(state.ledger),
        in_memory_bytes=state.ledger.size_bytes,
        unsettled_rows=unsettled_rows,
        unsettled_bytes=round(unsettled_share * state.ledger.size_bytes),
        in_flight_rows=state.lanes.rows_in_flight,
        in_flight_by_topic={lane.topic: lane.in_flight for lane in largest},
        settling_rows=settling_rows,
        oldest_in_memory_seconds=0.0
        if oldest is None
        else max(0, state.aftermath.now_ms - oldest.created_at_ms) / 1000,
        held_records=len(state.held),
        held_keys=len(state.gate.held),
        held=_held(state, now),
        breakers_open=len(state.lanes.breakers.open),
        breakers=_breakers(state, now),
        topics_held=len(state.topics.held),
        held_topics=[
            HeldTopicStatus(topic, sorted(reason.value for reason in reasons))
            for topic, reasons in islice(state.topics.held.items(), SHOWN_MAX)
        ],
        pauses=[PauseStatus(*pause) for pause in state.lanes.pauses[:SHOWN_MAX]],
        deferred_keys=len(state.gate.deferred_keys),
        deferred_topics=len(state.topics.deferred.keys() | state.partitions.deferred.keys()),
        topics=len(lanes),
        seconds_since_delivery=None if last_delivered_at < 0 else max(0.0, now - last_delivered_at),
        ended=None if relay.end is None else relay.end.reason,
        blocked_topics=() if relay.end is None else tuple(relay.end.blocked_topics),
        pauses_in_force=len(state.lanes.pauses),
        storm_holds=state.lanes.storm_holds,
        recovery_failure=relay.ownership.reading.recovering.failure,
        refused_rows=state.settling.refusals.refused_rows,
        refusal=state.settling.refusals.last_told,
        waits_for_refused=state.waits_for_refused(now),
        stalled_topics=relay.ownership.watch.stalled,
    )


def _role(relay: Relay) -> Role:
    if relay.is_stopping:
        return "draining"
    return "standby" if relay.state.token is None else "owner"


def _held(state: State, now: float) -> list[HeldStatus]:
    return [
        HeldStatus(
            outbox_id=held.id,
            topic=held.topic,
            key=held.key,
            state=held.state.value,
            why=held.why,
            attempts=held.history.attempts,
            age_seconds=max(0.0, now - held.waits_since),
            # What a new owner loaded has a time too, whatever became of it.
            due_in_seconds=max(0.0, held.due_at - now) if held.state is HeldState.SCHEDULED else None,
            dead_letter_id=held.history.dead_letter_id,
        )
        for held in islice(chain(state.held.by_id.values(), state.held.letters), SHOWN_MAX)
    ]


def _breakers(state: State, now: float) -> list[BreakerStatus]:
    return [
        BreakerStatus(
            topic=topic,
            error_code=breaker.fault.name,
            cause=breaker.message,
            open_seconds=max(0.0, now - breaker.opened_at),
            probes_failed=breaker.failures,
            next_probe_in_seconds=None if breaker.probing_id is not None else max(0.0, breaker.next_probe_at - now),
        )
        for topic, breaker in islice(state.lanes.breakers.open.items(), SHOWN_MAX)
    ]
