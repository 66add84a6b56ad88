"""Is a topic that stands still another one than the producer knew, deleted and created again under its name?

The cluster is asked by a client of its own each time, since one that knew the topic before may not see the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import KafkaException, Node, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.client_config import silent
from outboxd.kafka.client.lots import Lots
from outboxd.policy.rows.row_checks import topic_name_problem
from outboxd.policy.topics.remade_topics import RemadeTopics, TopicSight

ASK_SECONDS_MAX = 10.0


class RemadeTopicsWatch:
    """Learns the ids of the topics that are met, and says where one that stands still has another id by now."""

    def __init__(
        self, properties: Callable[[], Mapping[str, str]], on_remade: Callable[[Sequence[str]], object]
    ) -> None:
        """`properties` returns the user's present ones; `on_remade` is given topics that need another producer, on the
        thread that asks.
        """
        self._properties = properties
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

    def _ask(self, topics: list[str]) -> None:
        try:
            sights = sights_of(self._properties(), topics)
        except (KafkaException, ValueError, TimeoutError):
            return  # Not now, or not with these properties: it is asked again later.
        remade = self._topics.take(sights, self._still)
        if remade:
            self._on_remade(remade)


def sights_of(properties: Mapping[str, str], topics: Sequence[str]) -> dict[str, TopicSight]:
    """Ask the cluster for topics of legal names, by a client of its own; return what it tells of those that are there,
    within about ten seconds.

    Raises:
        KafkaException: no client can be made.
        TimeoutError: no answer came.
    """
    client = AdminClient({**silent(properties), "client.id": f"{properties.get('client.id', 'outboxd')}-topic-ids"})
    sights: dict[str, TopicSight] = {}
    for topic, future in client.describe_topics(TopicCollection(list(topics)), request_timeout=ASK_SECONDS_MAX).items():
        found = answer_of(future, ASK_SECONDS_MAX + 1)
        if isinstance(found, TopicDescription):
            # The library's own types leave out that there may be none.
            leaders: list[Node | None] = [partition.leader for partition in found.partitions]
            is_led = all(leader is not None and leader.id >= 0 for leader in leaders)
            # A broker that is too old for ids gives the same for all, so that nothing is taken for another topic.
            sights[topic] = TopicSight(str(found.topic_id), is_led)
    return sights
