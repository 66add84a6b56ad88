"""Is a topic that stands still another one than the producer knew, deleted and created again under its name?

It is asked for by a client of its own. New topics, of which an application may have many, share one for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import KafkaException

from outboxd.kafka.client.kept_admin import KeptAdmin
from outboxd.kafka.client.lots import Lots
from outboxd.kafka.cluster.topic_sights import sights_of
from outboxd.policy.rows.row_checks import topic_name_problem
from outboxd.policy.topics.remade_topics import RemadeTopics


class RemadeTopicsWatch:
    """Learns the ids of the topics that are met, and says where one that stands still has another id by now."""

    def __init__(
        self, properties: Callable[[], Mapping[str, str]], on_remade: Callable[[Sequence[str]], object]
    ) -> None:
        """`properties` returns the user's present ones; `on_remade` is given topics that need another producer, on the
        thread that asks.
        """
        self._admin = KeptAdmin(properties, "topic-ids")
        self._on_remade = on_remade
        self._topics = RemadeTopics()
        self._still: Collection[str] = ()
        # It is looked again in a moment.
        self._lots: Lots[str] = Lots("remade-topics", self._ask, may_wait=True)

    def look(self, met: Iterable[str], still: Collection[str], now: float) -> None:
        """Look at the topics that are met and at those that stand still, a few times a second; `now` is monotonic
        seconds. Never waits.
        """
        self._still = still
        if not self._lots.is_busy:
            # What the topics know is the asking thread's while there is one.
            self._lots.add([topic for topic in self._topics.wanted(met, still, now) if not topic_name_problem(topic)])
            self._admin.rest()

    def _ask(self, topics: list[str]) -> None:
        if not self._topics.are_new(topics):
            # What stands still may do so for what this client, too, takes for true.
            self._admin.drop()
        try:
            sights = sights_of(self._admin.client(), topics)
        except (KafkaException, ValueError, TimeoutError):
            self._admin.drop()
            return  # Not now, or not with these properties: it is asked again later.
        remade = self._topics.take({topic: sight for topic, sight in sights.items() if sight is not None}, self._still)
        if remade:
            self._on_remade(remade)
