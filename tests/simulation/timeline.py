"""Simulated time: a queue of what happens when. Nothing here waits; the clock jumps from one happening to the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH_MS = int(EPOCH.timestamp() * 1000)

Action = Callable[[], None]


class Timeline:
    """What happens when; `now` is in simulated seconds. Equal times go in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._asked = 0

    def monotonic(self) -> float:
        """The relay's Clock."""
        return self.now

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.now * 1000)

    def moment(self, seconds: float) -> datetime:
        """The database's notation of a simulated time."""
        return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))

    def after(self, delay_seconds: float, action: Action) -> None:
        """`delay_seconds` is not negative."""
        self._asked += 1
        heapq.heappush(self._queue, (self.now + delay_seconds, self._asked, action))

    def at(self, when: float, action: Action) -> None:
        self._asked += 1
        heapq.heappush(self._queue, (max(when, self.now), self._asked, action))

    def step(self) -> bool:
        """Let the next thing happen; return False when nothing is left."""
        if not self._queue:
            return False
        self.now, _, action = heapq.heappop(self._queue)
        action()
        return True

    def run_until(self, when: float, steps_max: int) -> bool:
        """Let happen what happens until then; return False when that takes more steps than any history should."""
        queue, pop = self._queue, heapq.heappop
        steps = 0
        while queue and queue[0][0] <= when:
            self.now, _, action = pop(queue)
            action()
            steps += 1
            if steps > steps_max:
                return False
        self.now = max(self.now, when)
        return True
