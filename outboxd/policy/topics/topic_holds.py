"""Topic holds: topics that wait as a whole, and what is read again when one goes on. Pure state; no clock, no I/O.

A topic is *held* for as long as it has at least one reason: an operator paused it, its breaker is open, the storm
guard closed it. Records of a held topic are dropped, and the topic is remembered as *deferred from id X*. When its
last reason is gone the topic *catches up*: it is read again from X, in id order, a batch at a time, and what the
forward read shows of it meanwhile is dropped, since the catch-up will show it. When a catch-up was answered in
full, the topic is free.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable
from dataclasses import dataclass

from outboxd.policy.rows.records import Arm, Record


class HoldReason(enum.Enum):
    """Why a topic waits."""

    PAUSED = "paused"
    BREAKER = "breaker"
    STORM = "storm"


@dataclass(frozen=True, slots=True)
class CatchUp:
    """A topic that goes on: its pending records are wanted again, from `from_id` on."""

    topic: str
    from_id: int


class TopicHolds:
    """Holds one entry a topic that is not free, and one a topic that was held until it is forgotten."""

    def __init__(self) -> None:
        """Start with every topic free."""
        self._reasons: dict[str, set[HoldReason]] = {}
        self._deferred: dict[str, int] = {}
        self._partly: set[str] = set()
        """The topics whose own time stands still though they go: a part of each is held."""
        self._since: dict[str, float] = {}
        self._held_seconds: dict[str, float] = {}

    @property
    def held(self) -> dict[str, set[HoldReason]]:
        """The held topics, each with its reasons."""
        return self._reasons

    @property
    def deferred(self) -> dict[str, int]:
        """The topics to be read again, each with the id from which on."""
        return self._deferred

    def hold(self, topic: str, reason: HoldReason, now: float) -> bool:
        """Hold the topic for this reason too. Return whether it went until now."""
        reasons = self._reasons.get(topic)
        if reasons is not None:
            reasons.add(reason)
            return False
        self._reasons[topic] = {reason}
        self._since.setdefault(topic, now)
        return True

    def release(self, topic: str, reason: HoldReason, now: float) -> bool:
        """Take this reason away. Return whether the topic goes on by that."""
        reasons = self._reasons.get(topic)
        if reasons is None or reason not in reasons:
            return False
        reasons.remove(reason)
        if reasons:
            return False
        del self._reasons[topic]
        self._consider_time(topic, now)
        return True

    def stop_time(self, topic: str, now: float) -> None:
        """A part of the topic is held: its own time stands still."""
        self._partly.add(topic)
        self._since.setdefault(topic, now)

    def go_on_with_time(self, topic: str, now: float) -> None:
        """No part of the topic is held any more."""
        self._partly.discard(topic)
        self._consider_time(topic, now)

    def _consider_time(self, topic: str, now: float) -> None:
        if topic not in self._reasons and topic not in self._partly:
            self._held_seconds[topic] = self._held_seconds.get(topic, 0.0) + now - self._since.pop(topic)

    def forget(self, topic: str) -> None:
        """Nothing is left of the topic, which is neither held nor to be read again: nobody asks for its own time."""
        self._held_seconds.pop(topic, None)

    def defer(self, topic: str, from_id: int) -> None:
        """Records of the topic were dropped elsewhere: it is to be read again from there."""
        self._deferred[topic] = min(from_id, self._deferred.get(topic, from_id))

    def nothing_left(self, topic: str, from_id: int) -> None:
        """A read showed that nothing of the topic is pending from there on, and nothing was dropped since."""
        if topic in self._deferred and self._deferred[topic] >= from_id:
            del self._deferred[topic]

    def own_time(self, topic: str, now: float) -> float:
        """Return a clock in seconds that stands still while the topic, or a part of it, is held."""
        return min(now, self._since.get(topic, now)) - self._held_seconds.get(topic, 0.0)

    def split(self, records: Iterable[Record], kept: Container[int]) -> tuple[list[Record], list[Record]]:
        """Divide records into those whose topics go and those that are dropped here, to be read again.

        `kept` are the ids of failed records, which others remember: they are asked for one by one when their turn has
        come, and need no deferral. They wait all the same for what is to be read again before them.
        """
        passed: list[Record] = []
        dropped: list[Record] = []
        for record in records:
            topic = record.topic
            if topic in self._reasons:
                if record.id not in kept:
                    self.defer(topic, record.id)
                dropped.append(record)
                continue
            from_id = self._deferred.get(topic)
            is_covered = from_id is not None and record.id >= from_id and record.arm != Arm.CATCH_UP
            if is_covered:
                dropped.append(record)
            else:
                passed.append(record)
        return passed, dropped

    def touches(self, topics: Iterable[str]) -> bool:
        """Say whether any of these topics is held or catching up, so that `split` has something to do."""
        return any(topic in self._reasons or topic in self._deferred for topic in topics)

    def catch_ups(self, topics_max: int) -> list[CatchUp]:
        """Return the topics that are to be read again now, at most `topics_max`."""
        chosen = [CatchUp(topic, from_id) for topic, from_id in self._deferred.items() if topic not in self._reasons]
        return chosen[:topics_max]

    @property
    def want_catch_ups(self) -> bool:
        """Whether any topic that goes is to be read again."""
        return not self._deferred.keys() <= self._reasons.keys()

    def caught_up(self, wish: CatchUp, complete_to: int | None) -> bool:
        """Take the answer of a catch-up; its records go through `split` next.

        Args:
            wish: what was asked for.
            complete_to: None when the answer showed all of the topic below the position; else the last id that it
                showed.

        Returns:
            False when the answer is not usable, since the topic was held or deferred from a lower id meanwhile.
        """
        if wish.topic in self._reasons or self._deferred.get(wish.topic) != wish.from_id:
            return False
        if complete_to is None:
            del self._deferred[wish.topic]
        else:
            # A cut may come before what this topic asked for: it stays as it was.
            self._deferred[wish.topic] = max(complete_to + 1, wish.from_id)
        return True
