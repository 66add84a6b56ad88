"""Topics that are deleted and created again: when the cluster is asked, and when another producer is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from queue import SimpleQueue

import pytest

from outboxd.kafka.client import kept_admin
from outboxd.kafka.cluster import remade_topics
from outboxd.kafka.cluster.remade_topics import RemadeTopicsWatch
from outboxd.policy.topics.remade_topics import (
    IDS_KNOWN_MAX,
    PAUSE_SECONDS,
    TOPICS_KNOWN_MAX,
    UNKNOWN_SECONDS,
    RemadeTopics,
    TopicSight,
)
from tests.support.children import wait_for

STILL = {"orders"}
WAIT_SECONDS = 10.0


def told(topic_id: str, *, is_led: bool = True, topic: str = "orders") -> Mapping[str, TopicSight]:
    return {topic: TopicSight(topic_id, is_led, 3)}


def knowing(topic_id: str) -> RemadeTopics:
    topics = RemadeTopics()
    assert topics.wanted(["orders"], (), 0.0) == ["orders"]
    assert topics.take(told(topic_id), ()) == []
    return topics


def test_a_topic_is_asked_for_when_it_is_met_and_again_only_while_its_id_is_unknown_or_it_stands_still() -> None:
    topics = RemadeTopics()
    assert topics.wanted(["orders", "missing"], (), 0.0) == ["orders", "missing"]
    topics.take(told("one"), ())
    assert topics.wanted(["orders", "missing"], STILL, UNKNOWN_SECONDS - 1) == []
    assert topics.wanted(["orders", "missing"], STILL, UNKNOWN_SECONDS) == ["missing"]
    assert topics.wanted(["orders"], STILL, PAUSE_SECONDS - 1) == []
    assert topics.wanted(["orders"], (), PAUSE_SECONDS) == []
    assert topics.wanted(["orders"], STILL, PAUSE_SECONDS) == ["orders"]


def test_a_topic_of_which_nothing_is_told_is_asked_for_ever_less_often() -> None:
    topics = RemadeTopics()
    asked_at = [now for now in range(200) if topics.wanted(["missing"], (), float(now))]
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses[:5] == [UNKNOWN_SECONDS, 2 * UNKNOWN_SECONDS, 4 * UNKNOWN_SECONDS, PAUSE_SECONDS, PAUSE_SECONDS]


def test_a_topic_that_stands_still_and_has_another_id_needs_another_producer_once() -> None:
    topics = knowing("one")
    assert topics.take(told("two"), STILL) == ["orders"]
    assert topics.take(told("two"), STILL) == []
    assert topics.take(told("one"), STILL) == [], "a broker that lags tells of the one before"
    assert topics.take(told("three"), STILL) == ["orders"]


@pytest.mark.parametrize(
    ("sight", "still"),
    [(told("one"), STILL), (told("two"), ()), (told("two", is_led=False), STILL), ({}, STILL)],
    ids=["the same topic", "it moves", "a partition has no leader", "it is not there"],
)
def test_no_other_producer_is_taken_for_a_topic_that(sight: Mapping[str, TopicSight], still: Collection[str]) -> None:
    assert knowing("one").take(sight, still) == []


def test_what_moved_or_had_no_leader_first_gets_another_producer_once_it_stands_still_and_has_leaders() -> None:
    topics = knowing("one")
    topics.take(told("two"), ())
    topics.take(told("two", is_led=False), STILL)
    assert topics.take(told("two"), STILL) == ["orders"]


def test_what_is_known_has_a_bound_in_topics_and_in_ids_of_each() -> None:
    topics = knowing("0")
    for number in range(1, 3 * IDS_KNOWN_MAX):
        assert topics.take(told(str(number)), STILL) == ["orders"]
    assert len(topics._ids["orders"]) == IDS_KNOWN_MAX
    many = [f"topic-{number}" for number in range(TOPICS_KNOWN_MAX)]
    topics.wanted(many, (), 1.0)
    assert len(topics._asked_at) == TOPICS_KNOWN_MAX
    assert topics._ids == {}


def test_the_cluster_is_asked_beside_the_relay_for_topics_of_legal_names_and_no_answer_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: SimpleQueue[list[str]] = SimpleQueue()
    answers: SimpleQueue[Mapping[str, TopicSight | None] | Exception] = SimpleQueue()
    found: SimpleQueue[Sequence[str]] = SimpleQueue()

    def sights_of(_: object, topics: list[str]) -> Mapping[str, TopicSight | None]:
        asked.put(topics)
        answer = answers.get(timeout=WAIT_SECONDS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(remade_topics, "sights_of", sights_of)
    monkeypatch.setattr(kept_admin, "AdminClient", lambda _: object())
    watch = RemadeTopicsWatch(dict, found.put)
    now = 0.0
    dropped: list[bool] = []
    monkeypatch.setattr(watch._admin, "drop", lambda: dropped.append(True))
    for answer, still in (
        (TimeoutError(), frozenset[str]()),
        ({"orders": None}, frozenset()),
        (told("one"), frozenset()),
        (told("two"), frozenset(STILL)),
    ):
        watch.look(["orders", "no legal name"], still, now)
        assert asked.get(timeout=WAIT_SECONDS) == ["orders"]
        watch.look(["orders"], still, now + PAUSE_SECONDS)
        answers.put(answer)
        wait_for(lambda: not watch._lots.is_busy, timeout_seconds=WAIT_SECONDS, what="the answer is taken")
        now += PAUSE_SECONDS
    assert found.get(timeout=WAIT_SECONDS) == ["orders"]
    assert asked.empty(), "one question at a time"
    assert len(dropped) == 2, "another client after a question in vain, and for a topic that stands still"
