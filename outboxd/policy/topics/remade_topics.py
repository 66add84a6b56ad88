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
"""So long after a question for a topic the next one comes at the earliest."""
TOPICS_KNOWN_MAX = 10_000
IDS_KNOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class TopicSight:
    """What the cluster tells of one topic: its id, and whether each of its partitions has a leader."""

    id: str
    is_led: bool


class RemadeTopics:
    """Knows the ids of topics. Times are monotonic seconds."""

    def __init__(self) -> None:
        """No topic was met yet."""
        self._ids: dict[str, tuple[str, ...]] = {}
        """By topic: the ids under which producers have known it, the present one last."""
        self._asked_at: dict[str, float] = {}

    def wanted(self, met: Iterable[str], still: Collection[str], now: float) -> list[str]:
        """Return the topics to ask for now, which counts as asked: those of which no id is known, and those that stand
        still.
        """
        wanted = [topic for topic in met if (topic not in self._ids or topic in still) and self._may_ask(topic, now)]
        if len(self._asked_at) + len(wanted) > TOPICS_KNOWN_MAX:
            # Those that are met still are asked for anew.
            self._ids.clear()
            self._asked_at.clear()
        self._asked_at.update(dict.fromkeys(wanted, now))
        return wanted

    def _may_ask(self, topic: str, now: float) -> bool:
        return now - self._asked_at.get(topic, float("-inf")) >= PAUSE_SECONDS

    def take(self, sights: Mapping[str, TopicSight], still: Collection[str]) -> list[str]:
        """Take what was told; return the topics for which another producer is needed: they stand still, and each is
        another than its producer knew. A producer is taken at most once for each id.
        """
        remade: list[str] = []
        for topic, sight in sights.items():
            known = self._ids.get(topic, ())
            if not known:
                self._ids[topic] = (sight.id,)
            elif sight.id not in known and topic in still and sight.is_led:
                # Brokers that lag tell of the one before for a while: that is known, and no other topic.
                self._ids[topic] = (*known[1 - IDS_KNOWN_MAX :], sight.id)
                remade.append(topic)
        return remade
