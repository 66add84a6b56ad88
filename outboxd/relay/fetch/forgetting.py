"""Forgetting: what is kept of a topic goes once nothing is left of it, where there are many topics."""

from __future__ import annotations

from itertools import chain

from outboxd.policy.rows.records import topic_of
from outboxd.relay.report.histories import NEIGHBOURS_SECONDS
from outboxd.relay.state import State


def forget_idle_topics(state: State, now: float) -> None:
    """Forget the topics of which nothing is in memory, held or to be read again. Mostly it is not worth a look."""
    if not state.lanes.are_many(now):
        return
    needed = set(map(topic_of, state.ledger.records.values()))
    needed.update(held.topic for held in chain(state.held.by_id.values(), state.held.letters))
    needed |= state.gate.topics()
    state.lanes.forget_idle(needed, now - NEIGHBOURS_SECONDS, now)
