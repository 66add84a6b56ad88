"""Topics that are deleted and created again: which topics are to be asked for, and which ones need another producer.

    met ──its id is told──▶ known ──stands still, and has another id, and leaders──▶ another producer, once an id

Kafka gives each topic an id of its own, whatever its name. The client keeps what it knew of the topic before where that
looks newer, and may send to its former leaders for ever; only another client asks anew. Where the id is the same a
topic stands still for another reason, which no other producer mends, and what is in flight would go twice for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

PAUSE_SECONDS = 30.0
"""So long after a question for a topic that stands still the next one comes at the earliest."""
UNKNOWN_SECONDS = 5.0
"""So long for one of unknown id, at first: that of a topic which was made again meanwhile would be taken for its first.
Each time twice as long, up to that of the others.
"""
TOPICS_KNOWN_MAX = 10_000
IDS_KNOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class TopicSight:
    """What the cluster tells of one topic: its id, whether each of its partitions has a leader, and how many it has."""

    id: str
    is_led: bool
    partitions: int


class RemadeTopics:
    """Knows the ids of topics. Times are monotonic seconds."""

    def __init__(self) -> None:
        """No topic was met yet."""
        self._ids: dict[str, tuple[str, ...]] = {}
        """By topic: the ids under which producers have known it, the present one last."""
        self._asked_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        """Of each topic of unknown id: how long after the last question the next one comes at the earliest."""

    def wanted(self, met: Iterable[str], still: Collection[str], now: float) -> list[str]:
        """Return the topics to ask for now, which counts as asked: those of which no id is known, and those that stand
        still.
        """
        wanted = [topic for topic in met if self._may_ask(topic, still, now)]
        if len(self._asked_at) + len(wanted) > TOPICS_KNOWN_MAX:
            # Those that are met still are asked for anew.
            self._ids.clear()
            self._asked_at.clear()
            self._pauses.clear()
        self._asked_at.update(dict.fromkeys(wanted, now))
        for topic in wanted:
            if topic not in self._ids:
                self._pauses[topic] = min(PAUSE_SECONDS, 2 * self._pauses.get(topic, UNKNOWN_SECONDS / 2))
        return wanted

    def _may_ask(self, topic: str, still: Collection[str], now: float) -> bool:
        is_known = topic in self._ids
        if is_known and topic not in still:
            return False
        pause_seconds = PAUSE_SECONDS if is_known else self._pauses.get(topic, 0.0)
        return now - self._asked_at.get(topic, float("-inf")) >= pause_seconds

    def are_new(self, topics: Iterable[str]) -> bool:
        """Say whether the id of none of these is known yet."""
        return not any(topic in self._ids for topic in topics)

    def take(self, sights: Mapping[str, TopicSight], still: Collection[str]) -> list[str]:
        """Take what was told; return the topics for which another producer is needed: they stand still, and each is
        another than its producer knew. A producer is taken at most once for each id.
        """
        remade: list[str] = []
        for topic, sight in sights.items():
            known = self._ids.get(topic, ())
            if not known:
                self._ids[topic] = (sight.id,)
                self._pauses.pop(topic, None)
            elif sight.id not in known and topic in still and sight.is_led:
                # Brokers that lag tell of the one before for a while: that is known, and no other topic.
                self._ids[topic] = (*known[1 - IDS_KNOWN_MAX :], sight.id)
                remade.append(topic)
        return remade
