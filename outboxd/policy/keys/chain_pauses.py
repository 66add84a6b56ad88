"""Chain pauses: when no chains go, since one failed. Pure: the time is an argument.

Whatever fails in a chain costs the chains of all keys, and that once more for each poison record. So the keys of that
topic go one record at a time for a while, longer each time, and those that are sick are found by that.
"""

from __future__ import annotations

from typing import Final

DOUBLINGS_MAX: Final = 6
"""A pause becomes as long as so many doublings make it: 320 s of 5."""
PAUSES_MAX: Final = 1_000
"""With more topics than that all pause until the last of them would go again."""


class ChainPauses:
    """By topic; times are monotonic seconds."""

    def __init__(self, first_seconds: float) -> None:
        """`first_seconds` is how long a pause is at first."""
        self._first_seconds = first_seconds
        self._until: dict[str, float] = {}
        self._spans: dict[str, float] = {}
        self._all_until = self._last_until = float("-inf")

    def failed(self, topic: str | None, now: float) -> float:
        """A chain of this topic failed, or, with None, all of them: return for how many seconds none goes.

        Each further time within as long after the end of a pause doubles it.
        """
        name = topic or ""
        span = self._spans.get(name, 0.0)
        is_again = now < self._until.get(name, float("-inf")) + span
        span = min(2**DOUBLINGS_MAX * self._first_seconds, 2 * span) if is_again else self._first_seconds
        if len(self._until) >= PAUSES_MAX:
            topic = self._make_room(topic, now)
        self._spans[name] = span
        self._until[name] = now + span
        self._last_until = max(self._last_until, now + span)
        if topic is None:
            self._all_until = max(self._all_until, now + span)
        return span

    def _make_room(self, topic: str | None, now: float) -> str | None:
        """Forget what is over; where all pause, return None: so does every topic."""
        over = [name for name, until in self._until.items() if until <= now]
        for name in over or list(self._until):
            del self._until[name]
            self._spans.pop(name, None)
        if over:
            return topic
        # For as long as the one that pauses longest, of which nothing is known any more.
        self._all_until = max(self._all_until, self._last_until)
        return None

    def is_paused(self, topic: str, now: float) -> bool:
        """Say whether no chain of this topic may go."""
        return now < self._all_until or now < self._until.get(topic, float("-inf"))

    def are_over(self, now: float) -> bool:
        """Say whether chains of all topics may go."""
        return now >= self._last_until
