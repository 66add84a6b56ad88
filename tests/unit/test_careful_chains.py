"""After an unclean end records of a key go together too, but only those that are recorded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from outboxd.policy.careful import STILL_SECONDS, WINDOW_ROWS, Opening
from outboxd.policy.rows.records import Record
from tests.unit.test_careful import FakePublisher, Scene, row


@dataclass
class ChainingPublisher(FakePublisher):
    """Takes chains."""

    chains: list[list[int]] = field(default_factory=list)
    room: int = 10_000

    def publish_chain(self, records: Sequence[Record]) -> int:
        going = [record.id for record in records[: self.room]]
        self.chains.append(going)
        return len(going)

    def end_chains(self) -> Collection[int]:
        return {1}


ROWS = [row(number) for number in range(500)]


@pytest.fixture
def publisher() -> ChainingPublisher:
    return ChainingPublisher()


@pytest.fixture
def scene(publisher: ChainingPublisher) -> Scene:
    scene = Scene(publisher)
    scene.journal.now = Opening(was_clean=False)
    return scene


def test_after_a_clean_end_they_go_at_once(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.journal.now = Opening(was_clean=True)
    assert scene.careful.publish_chain(ROWS) == 500
    assert scene.journal.record_ids is None


def test_none_goes_before_it_is_known_how_the_owner_before_ended(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.journal.now = None
    assert scene.careful.publish_chain(ROWS) == 0
    assert (publisher.chains, scene.journal.record_ids) == ([], None)


def test_after_an_unclean_end_as_many_go_as_are_recorded_once_that_is_written(
    scene: Scene, publisher: ChainingPublisher
) -> None:
    assert scene.careful.publish_chain(ROWS) == 0
    assert scene.journal.record_ids == list(range(WINDOW_ROWS))
    assert scene.careful.publish_chain(ROWS) == 0
    assert scene.careful.publish(ROWS[:1], 0) == 0, "its first one does not go by itself either"
    assert publisher.chains == []
    scene.journal.written = True
    assert scene.careful.publish_chain(ROWS) == WINDOW_ROWS
    assert publisher.chains == [list(range(WINDOW_ROWS))]


def test_the_next_ones_are_recorded_once_all_of_these_are_reported(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.careful.publish_chain(ROWS)
    scene.journal.written = True
    scene.careful.publish_chain(ROWS)
    assert scene.careful.publish_chain(ROWS[WINDOW_ROWS:]) == 0
    assert scene.journal.record_ids == list(range(WINDOW_ROWS))
    publisher.deliver(range(WINDOW_ROWS))
    scene.careful.take_reports()
    assert scene.careful.publish_chain(ROWS[WINDOW_ROWS:]) == 0
    assert scene.journal.record_ids == list(range(WINDOW_ROWS, 2 * WINDOW_ROWS))


def test_what_is_recorded_of_one_key_goes_before_anything_of_another_is_recorded(
    scene: Scene, publisher: ChainingPublisher
) -> None:
    first, second = ROWS[:10], ROWS[10:20]
    scene.careful.publish_chain(first)
    scene.journal.written = True
    assert scene.careful.publish_chain(second) == 0
    assert scene.journal.record_ids == list(range(10))
    assert scene.careful.publish_chain(first) == 10


def test_where_they_end_what_comes_back_is_in_the_air_no_more_and_keeps_nothing_waiting(
    scene: Scene, publisher: ChainingPublisher
) -> None:
    scene.careful.publish_chain(ROWS)
    scene.journal.written = True
    scene.careful.publish_chain(ROWS)
    publisher.deliver([0])
    scene.careful.take_reports()
    assert scene.careful.end_chains() == {1}
    assert scene.careful.publish(ROWS, 1) == 1
    assert scene.journal.record_ids == list(range(1, 1 + WINDOW_ROWS)), "though no time passed"


def test_a_suspect_ends_what_goes_together_before_it_and_goes_apart(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.journal.now = Opening(was_clean=False, suspects=frozenset([3]))
    scene.careful.publish_chain(ROWS)
    scene.journal.written = True
    assert scene.careful.publish_chain(ROWS) == 3
    assert scene.careful.publish_chain(ROWS[3:]) == 0
    assert scene.careful.publish(ROWS[3:4], 0) == 1
    assert scene.trial.sent == [3]
    assert scene.careful.publish_chain(ROWS[4:]) == WINDOW_ROWS - 3
    assert publisher.chains == [[0, 1, 2], list(range(4, WINDOW_ROWS + 1))]


def test_what_was_not_taken_stays_recorded_and_goes_next(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.careful.publish_chain(ROWS)
    scene.journal.written = True
    publisher.room = 50
    assert scene.careful.publish_chain(ROWS) == 50
    publisher.room = 10_000
    assert scene.careful.publish_chain(ROWS[50:]) == WINDOW_ROWS - 50
    assert scene.journal.record_ids == list(range(WINDOW_ROWS))


def test_after_a_rebuild_nothing_of_them_is_in_the_air(scene: Scene, publisher: ChainingPublisher) -> None:
    scene.careful.publish_chain(ROWS)
    scene.journal.written = True
    scene.careful.publish_chain(ROWS)
    scene.careful.rebuild()
    assert scene.careful.publish_chain(ROWS) == 0
    assert scene.journal.written is False, "they are recorded anew"


def test_where_they_stand_still_others_go_beside_them_and_are_recorded_with_them(
    scene: Scene, publisher: ChainingPublisher
) -> None:
    scene.careful.publish_chain(ROWS[:10])
    scene.journal.written = True
    scene.careful.publish_chain(ROWS[:10])
    scene.now += 2 * STILL_SECONDS
    assert scene.careful.publish(ROWS, 490) == 490
    assert scene.journal.record_ids == [*range(10), *range(490, 500)]
