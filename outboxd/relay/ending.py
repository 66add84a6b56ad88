"""Ending: when a relay that runs until nothing is left has come to its end, and how any relay ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from outboxd.policy.topics.topic_holds import HoldReason
from outboxd.relay.fetch.reading import Reading
from outboxd.relay.memory.held_record import HeldState
from outboxd.relay.state import State
from outboxd.relay.watch import Watch

FORCED = "forced"
"""Why it ended that was told to stop a second time."""


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How the relay ended, and which topics kept one from its end that runs until nothing is left."""

    reason: str
    blocked_topics: Sequence[str] = field(default_factory=tuple)

    @property
    def is_forced(self) -> bool:
        """Whether it was told to stop a second time."""
        return self.reason == FORCED


def consider_empty(state: State, reading: Reading, watch: Watch, now: float) -> RelayEnd | None:
    """Return the end of a relay that is to run until nothing is left: "empty", "blocked" by breakers, or "unsettled".

    None while something goes, is due soon, or a sweep has not yet shown that nothing is pending; that is hurried then.
    """
    if not reading.recovering.is_done:
        return RelayEnd("blocked") if reading.recovering.is_failing else None
    if watch.nothing_moves(now):
        in_flight = [lane.topic for lane in state.lanes.topics() if lane.in_flight]
        return RelayEnd("blocked", tuple(sorted(in_flight)))
    # Behind a breaker of a topic that is paused too nothing is waited for.
    held = state.topics.held
    closed = [
        topic
        for topic in state.lanes.breakers.open
        if (topic not in held if topic in state.partitions else held.get(topic) == {HoldReason.BREAKER})
    ]
    if closed:
        is_blocked = reading.read_all and _is_blocked(state, closed)
        return RelayEnd("blocked", tuple(sorted(closed))) if is_blocked else None
    soon = now + state.limits.shutdown_timeout_seconds
    if any(held.state is HeldState.SCHEDULED and held.due_at <= soon for held in state.held.by_id.values()):
        return None
    if _is_stuck(state, reading):
        return RelayEnd("unsettled")
    # What a pause or a held key keeps waiting is waited for by nobody.
    goes_on = len(state.ledger) or not state.settling.is_empty or state.aftermath.undecided
    if goes_on or state.wishes.has_open or not reading.read_all:
        return None
    if reading.sweeping.swept_empty:
        return RelayEnd("empty")
    reading.sweeping.hurry()
    return None


def _is_stuck(state: State, reading: Reading) -> bool:
    """Nothing is left in memory but rows that PostgreSQL refuses to settle again and again, and what waits behind them;
    and all else was read, or there is no room for it.
    """
    settling = state.settling
    if not settling.is_written or not settling.refusals.are_stuck or state.aftermath.undecided:
        return False
    if not state.is_crowded and (state.wishes.has_open or not reading.read_all):
        return False
    return state.ledger.records.keys() - state.gate.waiting_ids() <= settling.refusals.ids_aside()


def _is_blocked(state: State, closed: Sequence[str]) -> bool:
    """Nothing goes but behind these breakers, and each was probed in vain: none opened only a moment ago."""
    # Of a topic of which partitions are held, only what is stuck there.
    whole = {topic for topic in closed if topic not in state.partitions}
    stuck_ids = {record.id for record in state.stuck.stuck_records()}
    refusals = state.settling.refusals
    # They were delivered, and are waited for no longer than this takes to tell.
    refused_ids = refusals.ids_aside() if refusals.are_stuck else set()
    records = [each for each in state.ledger.records.values() if each.id not in refused_ids]
    if state.wishes.has_open or any(each.topic not in whole and each.id not in stuck_ids for each in records):
        return False
    breakers = state.lanes.breakers.open
    return all(
        breakers[topic].is_watched or (breakers[topic].failures and not state.lanes[topic].in_flight)
        for topic in closed
    )
