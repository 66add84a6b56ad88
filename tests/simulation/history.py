"""The history of one seed, and the violation that ends it: what a reader needs, and no more."""

from __future__ import annotations

import re
from collections import deque

from tests.simulation.timeline import Timeline


class Violation(AssertionError):  # noqa: N818  # a finding about the relay, no error of the simulation
    """An invariant does not hold. `about` names ids, keys or topics that the history is cut down to."""

    def __init__(self, invariant: str, text: str, about: tuple[object, ...] = ()) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.about = about


class History:
    """The latest happenings, each with its time."""

    def __init__(self, timeline: Timeline, lines_max: int = 4_000) -> None:
        self._timeline = timeline
        self._lines: deque[tuple[float, str]] = deque(maxlen=lines_max)

    def note(self, text: str) -> None:
        self._lines.append((self._timeline.now, text))

    def told(self, about: tuple[object, ...] = (), lines_max: int = 60) -> str:
        """Return the lines that concern `about` (all faults with them), the latest ones."""
        words = [re.compile(rf"(?<![\w.-]){re.escape(str(word))}(?![\w-])") for word in about]
        lines = [
            f"{when:9.3f}  {text}"
            for when, text in self._lines
            if not words or text.startswith(("!", "owner", "end")) or any(word.search(text) for word in words)
        ]
        return "\n".join(lines[-lines_max:])
