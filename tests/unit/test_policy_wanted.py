"""What waits to be read again: in which order, and whether any of it may be asked for."""

from __future__ import annotations

from outboxd.policy.keys.wanted import Wanted


def wanted(*entries: tuple[int, str]) -> Wanted[int]:
    made: Wanted[int] = Wanted()
    for entry, topic in entries:
        made.add(entry, topic)
    return made


def test_the_oldest_wish_stands_first_and_one_that_is_repeated_keeps_its_place() -> None:
    some = wanted((3, "a"), (1, "b"), (3, "a"), (2, "a"))
    assert list(some) == [3, 1, 2]

    some.put_last(3)

    assert list(some) == [1, 2, 3]


def test_something_is_open_while_an_entry_of_another_topic_than_the_closed_ones_is_wanted() -> None:
    some = wanted((1, "a"), (1, "a"), (2, "a"), (3, "b"))

    assert some.are_open(set())
    assert some.are_open({"a"})
    assert not some.are_open({"a", "b", "c"})
    some.put_last(3)
    some.discard(3)
    some.discard(3)
    assert not some.are_open({"a"})
    some.discard(1)
    assert some.are_open({"b"})
    some.discard(2)
    assert not some.are_open(set())
