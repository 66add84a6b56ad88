"""Verdicts: from a fault to an outcome. Pure: what the neighbours did, the time and the randomness are arguments.

A row's fault costs that row; the cluster's fault costs no row. So a record is only blamed when its fault is its own
by nature, or when other keys of its topic are delivered while it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from outboxd.policy.blame.backoff import retry_delay_seconds
from outboxd.policy.blame.outcomes import Alone, DeadLetter, DeathReason, Hold, Outcome, Retry, Unknown
from outboxd.policy.blame.routes import Route
from outboxd.policy.faults import Fault, FaultClass
from outboxd.policy.rows.records import FailureHistory

UNLISTED_TRIES_MAX = 3
"""How often an unlisted code is tried again before its topic is held."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What was going on when the record failed.

    Attributes:
        alone: the record was the only one of its batch, or the client refused it by itself.
        neighbours_delivered: other keys of the topic were delivered since this record failed before, or just now.
        storming: too many keys of the topic fail permanently with one code and none is delivered between.
        own_age_seconds: time since the record's first counted failure, without time on hold or paused.
        random_unit: drawn from [0, 1).
    """

    alone: bool
    neighbours_delivered: bool
    storming: bool
    own_age_seconds: float
    random_unit: float


def judge(fault: Fault, message: str, history: FailureHistory, route: Route, around: Circumstances) -> Outcome:
    """Return the outcome of a failed record.

    Args:
        fault: what the error means.
        message: the real cause in one line.
        history: what the record went through before this failure.
        route: the route of its topic.
        around: the circumstances.
    """
    match fault.fault_class:
        case FaultClass.PRODUCER:
            return Unknown(fault, message)
        case FaultClass.CLUSTER:
            return Hold(fault, message)
        case FaultClass.ROW_PERMANENT:
            return _permanent(fault, message, history, route, around)
        case FaultClass.TOPIC:
            if fault.unless_neighbour_passes:
                return _unless_neighbour_passes(fault, message, history, route, around)
            return _own_or_hold(fault, message, history, route, around)
        case FaultClass.ROW_PASSING:
            return _own_or_hold(fault, message, history, route, around)
        case FaultClass.UNLISTED:
            if history.attempts + 1 < UNLISTED_TRIES_MAX:
                return _again(fault, message, history, route, around)
            return Hold(fault, message)


def _permanent(fault: Fault, message: str, history: FailureHistory, route: Route, around: Circumstances) -> Outcome:
    if fault.batch_wide and not around.alone:
        return Alone(fault, message)
    if around.storming:
        return Hold(fault, message)
    reason = DeathReason.INVALID if fault.dead_reason == "invalid" else DeathReason.FATAL
    return DeadLetter(reason, fault, message, history.attempts + 1, route.holds_key_on_death)


def _unless_neighbour_passes(
    fault: Fault, message: str, history: FailureHistory, route: Route, around: Circumstances
) -> Outcome:
    if not around.alone:
        return Alone(fault, message)
    if around.neighbours_delivered:
        return _permanent(fault, message, history, route, around)
    return Hold(fault, message)


def _own_or_hold(fault: Fault, message: str, history: FailureHistory, route: Route, around: Circumstances) -> Outcome:
    if fault.batch_wide and not around.alone:
        return Alone(fault, message)
    if fault.of_one_partition or not around.neighbours_delivered:
        # A sick partition beside healthy ones is no row's fault, whatever the other partitions deliver.
        return Hold(fault, message)
    attempts = history.attempts + 1
    limits = route.retry
    if limits.max_attempts and attempts >= limits.max_attempts:
        return DeadLetter(DeathReason.EXHAUSTED, fault, message, attempts, route.holds_key_on_death)
    if limits.max_age_seconds and around.own_age_seconds >= limits.max_age_seconds:
        return DeadLetter(DeathReason.EXPIRED, fault, message, attempts, route.holds_key_on_death)
    return _again(fault, message, history, route, around)


def _again(fault: Fault, message: str, history: FailureHistory, route: Route, around: Circumstances) -> Retry:
    attempts = history.attempts + 1
    delay_seconds = retry_delay_seconds(
        attempts, route.retry.backoff_initial_seconds, route.retry.backoff_max_seconds, around.random_unit
    )
    return Retry(fault, message, attempts, delay_seconds, around.own_age_seconds)
