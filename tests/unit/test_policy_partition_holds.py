"""Partitions that are held while the others of their topic go."""

from __future__ import annotations

import itertools

from outboxd.policy.partition_holds import PartitionHolds
from outboxd.policy.partitioners import DEFAULT_PARTITIONER, Placement
from outboxd.policy.topic_holds import CatchUp, TopicHolds
from tests.unit.records import record

TWO = Placement(DEFAULT_PARTITIONER, 2)
SICK, WELL = (
    next(key for key in map(str, itertools.count()) if TWO.partition_of(key) == partition) for partition in (0, 1)
)


def holds_of(placement: Placement | None = TWO) -> tuple[PartitionHolds, TopicHolds]:
    """Return the holds, with the first partition of the topic `orders` held."""
    topics = TopicHolds()
    holds = PartitionHolds(topics, lambda topic: placement)
    holds.hold("orders", {0})
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


def test_a_record_whose_partition_nobody_can_tell_waits() -> None:
    holds, _ = holds_of()
    assert holds.split([record(1, key=None)], ())[0] == []
    unknown, _ = holds_of(None)
    assert unknown.split([record(1, key=WELL)], ())[0] == []


def test_once_a_partition_goes_on_its_topic_is_read_again_from_the_first_record_that_was_dropped() -> None:
    holds, topics = holds_of()
    holds.split([record(7, key=SICK), record(5, key=SICK)], ())
    holds.release("orders", [0])
    assert topics.catch_ups(1) == [CatchUp("orders", 5)]
    assert (holds.held, holds.deferred) == ({}, {})
    assert holds.split([record(5, key=SICK)], ())[0] == [record(5, key=SICK)]


def test_what_is_of_another_partition_that_is_held_still_is_dropped_anew_when_the_topic_is_read_again() -> None:
    holds, topics = holds_of()
    holds.hold("orders", {1})
    holds.split([record(5, key=SICK), record(6, key=WELL)], ())
    holds.release("orders", [0])
    assert topics.deferred == {"orders": 5}
    passed, _ = holds.split([record(5, key=SICK), record(6, key=WELL)], ())
    assert [each.id for each in passed] == [5]
    assert holds.deferred == {"orders": 6}


def test_a_partition_that_dropped_nothing_goes_on_without_its_topic_being_read_again() -> None:
    holds, topics = holds_of()
    holds.release("orders", [0])
    assert not topics.want_catch_ups


def test_a_failed_record_goes_unless_an_earlier_one_of_the_partition_was_dropped() -> None:
    holds, _ = holds_of()
    assert not holds.waits("orders", SICK, 3)
    assert holds.split([record(3, key=SICK)], {3}) == ([record(3, key=SICK)], [])
    holds.split([record(5, key=SICK)], ())
    assert [holds.waits("orders", SICK, record_id) for record_id in (4, 6)] == [False, True]
    assert not holds.waits("orders", WELL, 6)
    assert holds.split([record(6, key=SICK)], {6}) == ([], [record(6, key=SICK)])
    assert holds.deferred == {"orders": 5}


def test_partitions_are_all_held_where_their_number_says_so_or_is_not_known() -> None:
    holds, _ = holds_of()
    assert not holds.are_all("orders", {0})
    assert holds.are_all("orders", {1})
    unknown, _ = holds_of(None)
    assert unknown.are_all("orders", {0})


def test_only_records_of_topics_with_a_held_partition_are_looked_at() -> None:
    holds, _ = holds_of()
    assert holds.touches(["other", "orders"])
    assert not holds.touches(["other"])
