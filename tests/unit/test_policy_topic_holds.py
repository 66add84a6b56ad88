"""Topics that wait as a whole, and what is read again when they go on."""

from __future__ import annotations

from outboxd.policy.rows.records import Arm, Record
from outboxd.policy.topics.topic_holds import CatchUp, HoldReason, TopicHolds
from tests.unit.records import record


def ids(records: list[Record]) -> list[int]:
    return [one.id for one in records]


def test_a_topic_goes_on_when_its_last_reason_is_gone() -> None:
    topics = TopicHolds()

    assert topics.hold("t", HoldReason.PAUSED, 1.0)
    assert not topics.hold("t", HoldReason.BREAKER, 2.0)
    assert not topics.release("t", HoldReason.PAUSED, 3.0)
    assert topics.release("t", HoldReason.BREAKER, 4.0)
    assert not topics.held


def test_its_own_time_stands_still_while_a_topic_is_held() -> None:
    topics = TopicHolds()

    topics.hold("t", HoldReason.PAUSED, 10.0)
    assert topics.own_time("t", 15.0) == 10.0
    topics.release("t", HoldReason.PAUSED, 20.0)

    assert topics.own_time("t", 25.0) == 15.0
    assert topics.own_time("other", 25.0) == 25.0


def test_what_a_held_topic_shows_is_dropped_and_read_again_from_its_lowest_id() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.BREAKER, 0.0)

    passed, dropped = topics.split([record(5, topic="t"), record(6, topic="u"), record(9, topic="t")], ())
    topics.split([record(3, topic="t", arm=Arm.LOOK_BACK)], ())

    assert (ids(passed), ids(dropped)) == ([6], [5, 9])
    assert topics.catch_ups(9) == []
    topics.release("t", HoldReason.BREAKER, 1.0)
    assert topics.catch_ups(9) == [CatchUp("t", 3)]


def test_failed_records_are_remembered_elsewhere_and_need_no_deferral() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.BREAKER, 0.0)

    topics.split([record(5, topic="t", arm=Arm.CHOSEN)], {5})

    assert topics.deferred == {}


def test_a_failed_record_does_not_pass_what_its_topic_has_yet_to_read_again() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.PAUSED, 0.0)
    topics.split([record(5, topic="t", arm=Arm.LOOK_BACK)], ())
    topics.release("t", HoldReason.PAUSED, 1.0)

    passed, dropped = topics.split([record(3, topic="t", arm=Arm.CHOSEN), record(9, topic="t", arm=Arm.CHOSEN)], {3, 9})

    assert (ids(passed), ids(dropped)) == ([3], [9])
    assert topics.catch_ups(9) == [CatchUp("t", 5)]


def test_while_a_topic_catches_up_only_the_catch_up_shows_its_records() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.PAUSED, 0.0)
    topics.split([record(5, topic="t")], ())
    topics.release("t", HoldReason.PAUSED, 1.0)

    arms = (Arm.LOOK_BACK, Arm.CHOSEN, Arm.REREAD, Arm.FORWARD)
    shown = [record(8, topic="t", arm=arm) for arm in arms]
    passed, dropped = topics.split([*shown, record(4, topic="t"), record(7, topic="t", arm=Arm.CATCH_UP)], ())

    assert ids(passed) == [4, 7]
    assert ids(dropped) == [8, 8, 8, 8]


def test_a_catch_up_that_was_cut_goes_on_behind_the_cut_and_a_whole_one_frees_the_topic() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.PAUSED, 0.0)
    topics.split([record(5, topic="t")], ())
    topics.release("t", HoldReason.PAUSED, 1.0)

    assert topics.caught_up(CatchUp("t", 5), complete_to=20)
    assert topics.catch_ups(9) == [CatchUp("t", 21)]
    assert topics.caught_up(CatchUp("t", 21), complete_to=None)
    assert topics.catch_ups(9) == []


def test_an_answer_is_of_no_use_once_the_topic_is_held_again_or_deferred_from_lower() -> None:
    topics = TopicHolds()
    topics.hold("t", HoldReason.PAUSED, 0.0)
    topics.split([record(5, topic="t")], ())
    topics.release("t", HoldReason.PAUSED, 1.0)
    topics.hold("t", HoldReason.BREAKER, 2.0)

    assert not topics.caught_up(CatchUp("t", 5), None)
    topics.split([record(2, topic="t")], ())
    topics.release("t", HoldReason.BREAKER, 3.0)
    assert not topics.caught_up(CatchUp("t", 5), None)
    assert topics.caught_up(CatchUp("t", 2), None)


def test_its_own_time_leaves_out_each_time_that_a_topic_was_held() -> None:
    topics = TopicHolds()

    for began_at in (10.0, 20.0, 30.0):
        topics.hold("t", HoldReason.BREAKER, began_at)
        topics.release("t", HoldReason.BREAKER, began_at + 5.0)

    assert topics.own_time("t", 40.0) == 25.0


def test_a_read_of_a_topic_from_an_id_on_says_nothing_of_what_was_dropped_below_it() -> None:
    topics = TopicHolds()
    topics.defer("t", 5)

    topics.nothing_left("t", 6)
    topics.nothing_left("another", 1)
    assert topics.deferred == {"t": 5}
    topics.nothing_left("t", 5)

    assert topics.deferred == {}


def test_a_cut_before_what_a_topic_asked_for_leaves_its_wish_as_it_was() -> None:
    topics = TopicHolds()
    topics.defer("t", 5)

    assert topics.caught_up(CatchUp("t", 5), complete_to=3)

    assert topics.catch_ups(9) == [CatchUp("t", 5)]


def test_no_more_topics_are_read_again_at_once_than_is_asked_for() -> None:
    topics = TopicHolds()
    for topic in ("held", "first", "second", "third"):
        topics.defer(topic, 1)
    topics.hold("held", HoldReason.PAUSED, 0.0)

    assert topics.catch_ups(2) == [CatchUp("first", 1), CatchUp("second", 1)]
