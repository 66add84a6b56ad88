"""What the cluster tells of topics: whether they are there, with which ids, how many partitions, and leaders.

Asked by `DescribeTopics`, which makes none: an ordinary question for a topic has brokers create it that do so by
themselves (`auto.create.topics.enable`), and one that was deleted would come back with each question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import Node, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.codes import NO_TOPIC, in_words
from outboxd.policy.topics.remade_topics import TopicSight

ASK_SECONDS_MAX: Final = 10.0


def sights_of(client: AdminClient, topics: Sequence[str]) -> dict[str, TopicSight | None]:
    """Ask for topics of legal names; return what is told of each, None for one that is not there, within about ten
    seconds. Those of which nothing is told, as for want of a right, are left out.

    Raises:
        TimeoutError: no answer came; another client may have one.
    """
    sights: dict[str, TopicSight | None] = {}
    for topic, future in client.describe_topics(TopicCollection(list(topics)), request_timeout=ASK_SECONDS_MAX).items():
        found = answer_of(future, ASK_SECONDS_MAX + 1)
        if isinstance(found, TopicDescription):
            sights[topic] = _sight(found)
        elif found.args[0].code() in NO_TOPIC:
            sights[topic] = None
        elif found.args[0].code() < 0:
            # The client's own. It asks the controller that it knows, and on and on where that has died since.
            raise TimeoutError(in_words(found.args[0]))
    return sights


def _sight(found: TopicDescription) -> TopicSight:
    # The library's own types leave out that there may be none.
    leaders: list[Node | None] = [partition.leader for partition in found.partitions]
    is_led = all(leader is not None and leader.id >= 0 for leader in leaders)
    # A broker that is too old for ids gives the same for all, so that nothing is taken for another topic.
    return TopicSight(str(found.topic_id), is_led, len(leaders))
