"""Outcomes: what a delivery report means for its record. A closed union, matched once, where the report is taken.

Delivered and DeadLetter end a record; Retry keeps it in the `retry` table until it is due; Hold keeps it pending
without counting an attempt, because the fault was not its own; Alone sends it again by itself, because a batch is
not a culprit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from outboxd.policy.faults import Fault


class DeathReason(enum.Enum):
    """Why a record was dead-lettered; the values are those of `dead_letter.reason`."""

    FATAL = "fatal"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker acknowledged the record at this place. `offset` is None where nobody waited for the
    acknowledgement.
    """

    partition: int | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class Retry:
    """The record's own, passing fault: again after `delay_seconds`; `attempts` counts this failure too, and
    `own_age_seconds` is the time since the first one, without that on hold or paused.
    """

    fault: Fault
    message: str
    attempts: int
    delay_seconds: float
    own_age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record never will be delivered as it is, or not within what the route allows."""

    reason: DeathReason
    fault: Fault
    message: str
    attempts: int
    holds_key: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """The fault is not the record's: it stays pending, uncounted, and its topic waits behind a breaker."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Alone:
    """A batch-wide verdict: the record is only a suspect, and goes again one record a batch before it is blamed."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The producer failed under the record: it may or may not be in the log, and goes again, in order, uncounted."""

    fault: Fault
    message: str


Outcome = Delivered | Retry | DeadLetter | Hold | Alone | Unknown
