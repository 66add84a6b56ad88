"""Findings: what a check of the surroundings has to say, and what it costs. Values only; others look and tell."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Weight(enum.Enum):
    """How bad a finding is. The order is that of the exit codes: the last of several decides."""

    FINE = "ok"
    """As it should be."""
    WARNING = "warning"
    """It works, and somebody should know."""
    UNAVAILABLE = "unavailable"
    """A server, or something on it, is not there."""
    FORBIDDEN = "forbidden"
    """A right is missing."""
    MISCONFIGURED = "misconfigured"
    """The configuration or the schema cannot be used as it is."""

    @property
    def is_problem(self) -> bool:
        """Whether it keeps the daemon from doing its work."""
        return self not in {Weight.FINE, Weight.WARNING}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: what was looked at: configuration, database, schema, grants, broker or topics.
        weight: how bad it is.
        message: what is so, in a sentence.
        remedy: what to do about it; empty where nothing is to be done.
    """

    area: str
    weight: Weight
    message: str
    remedy: str = ""


def worst(findings: list[Finding]) -> Weight:
    """The weight that decides the exit code; fine where there are none."""
    order = list(Weight)
    return max((finding.weight for finding in findings), key=order.index, default=Weight.FINE)
