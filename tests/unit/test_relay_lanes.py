"""What the relay keeps of each topic, and what operators hold and let go."""

from __future__ import annotations

from outboxd.policy.blame.routes import Route
from outboxd.policy.faults import own_fault
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.topics.breakers import storm_note
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.ports import Pause

STORMED = own_fault("INVALID_TOPIC")


class StillClock:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 0.0


def lanes_of(topics: TopicHolds) -> Lanes:
    return Lanes([], Route(), topics, KeyGate(), clock=StillClock())


def test_a_topic_that_an_operator_lets_go_after_a_storm_is_tried_by_one_record_unless_kafka_can_never_have_it() -> None:
    topics = TopicHolds()
    lanes = lanes_of(topics)
    legal, illegal = "orders", "orders/created"
    lanes.pause([Pause(topic, 0, "a daemon", storm_note(STORMED)) for topic in (legal, illegal)], 0.0)
    lanes.meet([legal, illegal])
    assert set(topics.held) == {legal, illegal}

    _, resumed = lanes.pause([], 1.0)

    assert sorted(resumed) == [legal, illegal]
    assert lanes.take_let_go() == {legal: STORMED}
    assert [lanes.storms.is_watched(topic, STORMED.code, 1, 2.0) for topic in (legal, illegal)] == [True, False]
