"""The words of the daemon's state in one line, as systemd, the page and `outboxd status` show it."""

from __future__ import annotations

from typing import Final

from outboxd.policy.blame.cause import plain
from outboxd.relay.status import RelayStatus

ROLES: Final = {"owner": "relaying", "standby": "standing by", "draining": "stopping"}
_TOPIC_CHARS_MAX: Final = 60


def topics_stuck(status: RelayStatus) -> str:
    """Return which topic is stuck, and how many others."""
    first, *rest = status.stalled_topics
    topic, others = plain(first, _TOPIC_CHARS_MAX), len(rest)
    return f"{topic} and {counted(others, 'other topic')} are stuck" if others else f"{topic} is stuck"


def topics_on_hold(status: RelayStatus) -> str:
    """Return how many topics wait, and for one of them why: of one that nobody paused, where there is one."""
    told = f"{counted(status.topics_held, 'topic')} on hold"
    if not status.held_topics:
        return told
    codes = {breaker.topic: breaker.error_code for breaker in status.breakers}
    chosen = min(status.held_topics, key=lambda held: (list(held.reasons) == ["paused"], held.topic))
    # A topic is whatever an application wrote, and this is one line.
    name = plain(chosen.topic, _TOPIC_CHARS_MAX)
    return f"{told} ({name}: {codes.get(chosen.topic) or ', '.join(chosen.reasons)})"


def counted(count: int, noun: str, more: str = "") -> str:
    """Return so many of them in words; `more` is appended to the number where there are more."""
    return f"{count:,}{more} {noun}" if count == 1 and not more else f"{count:,}{more} {noun}s"


def spoken(seconds: float) -> str:
    """Return a time in its largest fitting unit."""
    for unit_seconds, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
