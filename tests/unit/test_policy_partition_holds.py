"""Partitions that are held while the others of their topic go."""

from __future__ import annotations

import itertools

from outboxd.policy.topics.partition_holds import PartitionHolds
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from outboxd.policy.topics.topic_holds import CatchUp, HoldReason, TopicHolds
from tests.unit.records import record

TWO = Placement(DEFAULT_PARTITIONER, 2)
SICK, WELL = (
    next(key for key in map(str, itertools.count()) if TWO.partition_of(key) == partition) for partition in (0, 1)
)


def holds_of() -> tuple[PartitionHolds, TopicHolds]:
    """Return the holds, with the first partition of the topic `orders` held since 10."""
    topics = TopicHolds()
    holds = PartitionHolds(topics)
    holds.hold("orders", TWO, {0}, 10.0)
    return holds, topics


def test_records_of_a_held_partition_are_dropped_and_those_of_others_go() -> None:
    holds, _ = holds_of()
    records = [record(1, key=SICK), record(2, key=WELL), record(3, key=SICK), record(4, key=SICK, topic="other")]
    passed, dropped = holds.split(records, ())
    assert ([each.id for each in passed], [each.id for each in dropped]) == ([2, 4], [1, 3])
    assert holds.deferred == {"orders": 1}


def test_a_record_that_names_its_partition_goes_by_that() -> None:
    holds, _ = holds_of()
    passed, _ = holds.split([record(1, key=SICK, partition=1), record(2, key=WELL, partition=0)], ())
    assert [each.id for each in passed] == [1]


def test_a_record_whose_partition_nobody_can_tell_waits_until_the_last_one_goes_on() -> None:
    holds, topics = holds_of()
    holds.hold("orders", TWO, {1}, 11.0)
    assert holds.split([record(1, key=None)], ())[0] == []
    holds.release("orders", [0], 12.0)
    assert topics.deferred == {}
    holds.release("orders", [1], 13.0)
    assert topics.deferred == {"orders": 1}


def test_once_a_partition_goes_on_its_topic_is_read_again_from_the_first_record_that_was_dropped() -> None:
    holds, topics = holds_of()
    holds.split([record(7, key=SICK), record(5, key=SICK)], ())
    holds.release("orders", [0], 12.0)
    assert topics.catch_ups(1) == [CatchUp("orders", 5)]
    assert (holds.topics, holds.deferred) == (set(), {})
    assert holds.split([record(5, key=SICK)], ())[0] == [record(5, key=SICK)]


def test_what_another_partition_dropped_is_not_read_again_before_that_one_goes_on() -> None:
    holds, topics = holds_of()
    holds.hold("orders", TWO, {1}, 11.0)
    holds.split([record(5, key=WELL), record(6, key=SICK)], ())
    holds.release("orders", [0], 12.0)
    assert topics.deferred == {"orders": 6}
    assert holds.deferred == {"orders": 5}


def test_a_partition_that_dropped_nothing_goes_on_without_its_topic_being_read_again() -> None:
    holds, topics = holds_of()
    holds.release("orders", [0], 12.0)
    assert not topics.want_catch_ups


def test_records_are_placed_as_was_known_when_the_hold_began() -> None:
    holds, _ = holds_of()
    holds.hold("orders", Placement(DEFAULT_PARTITIONER, 4), {1}, 11.0)
    assert holds.placement_of("orders") == TWO
    assert holds.placement_of("other") is None


def test_a_failed_record_goes_unless_an_earlier_one_of_the_partition_was_dropped() -> None:
    holds, _ = holds_of()
    assert not holds.waits("orders", SICK, None, 3)
    assert holds.split([record(3, key=SICK)], {3}) == ([record(3, key=SICK)], [])
    holds.split([record(5, key=SICK)], ())
    assert [holds.waits("orders", SICK, None, record_id) for record_id in (4, 6)] == [False, True]
    assert not holds.waits("orders", WELL, None, 6)
    assert [holds.waits("orders", WELL, partition, 6) for partition in (0, 1)] == [True, False]
    assert holds.split([record(6, key=SICK)], {6}) == ([], [record(6, key=SICK)])
    assert holds.deferred == {"orders": 5}


def test_a_failed_record_without_a_key_goes_since_it_has_no_order() -> None:
    holds, _ = holds_of()
    holds.split([record(5, key=None)], ())
    assert not holds.waits("orders", None, None, 6)
    assert holds.split([record(6, key=None)], {6})[0] == [record(6, key=None)]


def test_the_own_time_of_a_topic_stands_still_while_a_partition_or_all_of_it_is_held() -> None:
    holds, topics = holds_of()
    topics.hold("orders", HoldReason.PAUSED, 20.0)
    holds.release("orders", [0], 30.0)
    assert topics.own_time("orders", 35.0) == 10.0
    topics.release("orders", HoldReason.PAUSED, 40.0)
    assert topics.own_time("orders", 45.0) == 15.0


def test_its_own_time_goes_on_with_the_last_of_what_holds_a_topic_or_a_part_of_it_whichever_that_is() -> None:
    holds, topics = holds_of()
    topics.hold("orders", HoldReason.PAUSED, 20.0)
    topics.release("orders", HoldReason.PAUSED, 30.0)
    assert topics.own_time("orders", 35.0) == 10.0
    holds.release("orders", [0], 40.0)
    assert topics.own_time("orders", 45.0) == 15.0


def test_only_records_of_topics_with_a_held_partition_are_looked_at() -> None:
    holds, _ = holds_of()
    assert holds.touches(["other", "orders"])
    assert not holds.touches(["other"])
    assert "orders" in holds
