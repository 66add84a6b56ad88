"""Routes: how the records of a topic are sent and judged. The first route whose glob matches the topic wins."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field


class Confirm(enum.Enum):
    """When a record counts as delivered."""

    CALLBACK = "callback"
    """Send all, then drain the reports."""
    EACH = "each"
    """One record of the topic in flight: the strict synchronous form."""
    NONE = "none"
    """Fire and forget: settled when the client took it. Losses are counted."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often and how long a record's own passing fault is tried again. Zero for a maximum means no limit."""

    max_attempts: int = 10
    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 300.0
    max_age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Route:
    """What holds for topics that match `topic_glob`."""

    topic_glob: str = "*"
    confirm: Confirm = Confirm.CALLBACK
    holds_key_on_death: bool = False
    retry: RetryLimits = field(default_factory=RetryLimits)


def route_for(topic: str, routes: Sequence[Route], default: Route) -> Route:
    """Return the first route whose glob matches the topic (case matters), else the default."""
    for route in routes:
        if fnmatch.fnmatchcase(topic, route.topic_glob):
            return route
    return default


def matches_pattern(topic: str, pattern: str) -> bool:
    """Say whether an operator's pattern (a glob) covers the topic."""
    return fnmatch.fnmatchcase(topic, pattern)
