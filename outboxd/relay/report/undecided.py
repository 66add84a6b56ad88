"""Undecided: failures that wait for their topic's other records, which tell whose fault it was."""

from __future__ import annotations

from typing import NamedTuple, Self

from outboxd.policy.exchange.messages import Report
from outboxd.relay.memory.lanes import Lane

UNDECIDED_SECONDS = 1.0
"""So long at least a permanent failure that would make a storm waits for a neighbour's delivery."""
SILENCE_SECONDS = 30.0
"""So long at most, as no restart of a broker explains more: what stands still may do so for hours, while ever more
fails and is kept in memory."""


class Undecided(NamedTuple):
    """A failure that was reported at `since`. Once the topic has had `answers`, all are in that were owed then."""

    since: float
    answers: int
    report: Report

    @classmethod
    def of(cls, report: Report, since: float, lane: Lane) -> Self:
        """A failure that comes to wait now. Where the cluster was asked whose fault it is, it was before the answer."""
        failed_at = None if report.error is None else report.error.failed_at
        return cls(since if failed_at is None else failed_at, lane.answered + lane.in_flight, report)

    def waits(self, lane: Lane, now: float) -> bool:
        """Say whether a neighbour may still be delivered that was on its way when this failed.

        A broker that is silent for some seconds, while a partition's leader changes, says nothing about the topic: only
        when as many were answered as were on their way is it known that none of them passed. What an aborted
        transaction gave back is on its way again: no answer, and no silence either.
        """
        seconds_max = SILENCE_SECONDS if lane.answered < self.answers else UNDECIDED_SECONDS
        comes = lane.in_flight > 0 or lane.given_back > 0
        return comes and now - max(self.since, lane.given_back_at) < seconds_max
