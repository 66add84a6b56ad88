"""After an unclean end: what is in the air is recorded before, suspects go apart, and nobody innocent is blamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from outboxd.kafka.plain.no_transactions import NoTransactions
from outboxd.kafka.transactional.no_chains import NoChains
from outboxd.policy.careful import (
    CAREFUL_SECONDS,
    STILL_ROWS_MAX,
    STILL_SECONDS,
    SUSPECTS_MAX,
    WINDOW_ROWS,
    Opening,
    recorded,
)
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from outboxd.relay.publish.careful import CarefulPublisher

ROWS_MAX = 1_000


def row(record_id: int) -> Record:
    return Record(6, record_id, "event", "orders", f"k{record_id}", b"x", "{}", None, 1, 1)


@dataclass
class FakePublisher(NoTransactions, NoChains):
    """The broker: notes what it was given, reports what the test says."""

    published: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    rows_max: int = 10_000

    def publish(self, records: Sequence[Record], start: int) -> int:
        end = min(len(records), start + self.rows_max)
        self.published += [record.id for record in records[start:end]]
        return end

    def connection_trouble(self) -> None:
        return None

    def placement(self, topic: str) -> None:
        return None

    def is_missing(self, topic: str) -> bool:
        return False

    def misplaced(self, topic: str) -> None:
        return None

    def publish_alone(self, record: Record) -> bool:
        self.alone.append(record.id)
        return True

    def deliver(self, record_ids: Sequence[int]) -> None:
        self.reports += [Report(row(record_id), None, 0, record_id) for record_id in record_ids]

    def take_reports(self) -> list[Report]:
        taken, self.reports = self.reports, []
        return taken

    def poll(self, timeout_seconds: float) -> None: ...
    def flush(self, timeout_seconds: float) -> None: ...
    def questioned(self) -> set[int]:
        return set()

    def failure(self) -> DeliveryFault | None: ...
    def rebuild(self) -> None: ...
    def purge(self) -> None: ...


@dataclass
class FakeJournal:
    """The database: what is written is there when the test says so."""

    now: Opening | None = None
    written: bool = True
    record_ids: Sequence[int] | None = None

    def opening(self) -> Opening | None:
        return self.now

    def write(self, record_ids: Sequence[int]) -> None:
        self.record_ids, self.written = list(record_ids), False

    def is_written(self) -> bool:
        return self.written


@dataclass
class FakeTrial:
    """The other process."""

    sent: list[int] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    owed: int = 0
    abandoned: int = 0

    def send(self, records: Sequence[Record]) -> None:
        self.sent += [record.id for record in records]
        self.owed += len(records)

    def take_reports(self) -> list[Report]:
        taken, self.reports = self.reports, []
        self.owed -= len(taken)
        return taken

    def abandon(self) -> None:
        self.abandoned += 1
        self.owed = 0

    def is_idle(self) -> bool:
        return self.owed == 0


@dataclass
class Scene:
    """A careful publisher among fakes, its clock and what it told."""

    publisher: FakePublisher = field(default_factory=FakePublisher)
    journal: FakeJournal = field(default_factory=FakeJournal)
    trial: FakeTrial = field(default_factory=FakeTrial)
    told: list[str] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.careful = CarefulPublisher(self.publisher, self.journal, self.trial, self, self.event, rows_max=ROWS_MAX)

    def monotonic(self) -> float:
        return self.now

    def event(self, name: str, **fields: object) -> None:
        self.told.append(name)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_goes_before_it_is_known_how_the_owner_before_ended(scene: Scene) -> None:
    assert scene.careful.publish([row(1)], 0) == 0
    assert not scene.careful.publish_alone(row(1))
    assert scene.publisher.published == scene.publisher.alone == []


def test_after_a_clean_end_all_goes_at_once_and_nothing_is_written(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=True)
    rows = [row(number) for number in range(500)]
    assert scene.careful.publish(rows, 0) == 500
    assert scene.journal.record_ids is None
    assert scene.told == []


def test_after_an_unclean_end_a_window_goes_only_once_it_is_written(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    rows = [row(number) for number in range(500)]

    assert scene.careful.publish(rows, 0) == 0
    assert scene.journal.record_ids == list(range(WINDOW_ROWS))
    assert scene.careful.publish(rows, 0) == 0
    assert scene.publisher.published == []

    scene.journal.written = True
    assert scene.careful.publish(rows, 0) == WINDOW_ROWS
    assert scene.publisher.published == list(range(WINDOW_ROWS))

    # The next one waits for all reports of this one.
    scene.publisher.deliver(range(WINDOW_ROWS - 1))
    scene.careful.take_reports()
    assert scene.careful.publish(rows, WINDOW_ROWS) == WINDOW_ROWS
    assert scene.journal.record_ids == list(range(WINDOW_ROWS))
    scene.publisher.deliver([WINDOW_ROWS - 1])
    scene.careful.take_reports()
    assert scene.careful.publish(rows, WINDOW_ROWS) == WINDOW_ROWS
    assert scene.journal.record_ids == list(range(WINDOW_ROWS, 2 * WINDOW_ROWS))


def test_what_a_missing_topic_keeps_of_a_window_keeps_the_next_one_for_a_moment_only_and_is_recorded_with_it(
    scene: Scene,
) -> None:
    scene.journal.now = Opening(was_clean=False)
    rows = [row(number) for number in range(500)]
    scene.careful.publish(rows, 0)
    scene.journal.written = True
    scene.careful.publish(rows, 0)
    scene.now = 5.0
    scene.publisher.deliver(range(1, WINDOW_ROWS))
    scene.careful.take_reports()

    scene.now += STILL_SECONDS / 2
    assert scene.careful.publish(rows, WINDOW_ROWS) == WINDOW_ROWS
    assert scene.journal.record_ids == list(range(WINDOW_ROWS)), "the window moved a moment ago"

    scene.now += STILL_SECONDS
    assert scene.careful.publish(rows, WINDOW_ROWS) == WINDOW_ROWS
    assert scene.journal.record_ids == [0, *range(WINDOW_ROWS, 2 * WINDOW_ROWS)]
    scene.journal.written = True
    assert scene.careful.publish(rows, WINDOW_ROWS) == 2 * WINDOW_ROWS


def careful_beside_a_row_that_stands_still(scene: Scene, rows: Sequence[Record]) -> None:
    """The first window went, and but for row 0 it was reported."""
    scene.journal.now = Opening(was_clean=False)
    scene.careful.publish(rows, 0)
    scene.journal.written = True
    scene.careful.publish(rows, 0)
    scene.publisher.deliver(range(1, WINDOW_ROWS))
    scene.careful.take_reports()
    scene.now += STILL_SECONDS


def test_once_a_row_is_known_to_stand_still_no_window_waits_for_it(scene: Scene) -> None:
    rows = [row(number) for number in range(4 * WINDOW_ROWS)]
    careful_beside_a_row_that_stands_still(scene, rows)
    sent = WINDOW_ROWS
    while sent < len(rows):
        scene.careful.publish(rows, sent)
        scene.journal.written = True
        going, sent = sent, scene.careful.publish(rows, sent)
        assert sent == min(going + WINDOW_ROWS, len(rows)), "though no time passes"
        scene.publisher.deliver(range(going, sent))
        scene.careful.take_reports()


def test_care_ends_though_a_row_stands_still_which_stays_recorded(scene: Scene) -> None:
    rows = [row(number) for number in range(500)]
    careful_beside_a_row_that_stands_still(scene, rows)
    scene.careful.publish(rows, WINDOW_ROWS)
    scene.journal.written = True
    scene.careful.publish(rows, WINDOW_ROWS)
    scene.publisher.deliver(range(WINDOW_ROWS, 2 * WINDOW_ROWS))
    scene.now += CAREFUL_SECONDS
    scene.careful.take_reports()
    assert scene.told == ["careful_start", "careful_end"]
    assert scene.journal.record_ids == [0]
    assert scene.careful.publish(rows, 2 * WINDOW_ROWS) == len(rows)


def test_beside_a_thousand_rows_without_a_report_no_more_go(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    rows = [row(number) for number in range(5_000)]
    sent = 0
    for _ in range(20):
        scene.now += 2 * STILL_SECONDS
        sent = scene.careful.publish(rows, sent)
        scene.journal.written = True
    assert sent == STILL_ROWS_MAX + WINDOW_ROWS
    assert len(scene.journal.record_ids or ()) == sent


def test_a_record_that_goes_alone_is_written_before_too(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    assert not scene.careful.publish_alone(row(7))
    assert scene.journal.record_ids == [7]
    scene.journal.written = True
    assert scene.careful.publish_alone(row(7))
    assert scene.publisher.alone == [7]


def test_a_window_that_the_relay_took_back_does_not_block_the_next(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    scene.careful.publish([row(1), row(2)], 0)
    scene.journal.written = True
    assert scene.careful.publish([row(3)], 0) == 0
    assert scene.journal.record_ids == [3]


def test_a_full_producer_is_asked_again_for_the_same_window(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    scene.careful.publish([row(1), row(2)], 0)
    scene.journal.written = True
    scene.publisher.rows_max = 0
    assert scene.careful.publish([row(1), row(2)], 0) == 0
    assert scene.journal.written
    scene.publisher.rows_max = 10
    assert scene.careful.publish([row(1), row(2)], 0) == 2


def test_suspects_go_by_the_trial_and_stay_recorded_until_they_are_cleared_and_those_that_killed_as_long_as_care_lasts(
    scene: Scene,
) -> None:
    scene.journal.now = Opening(was_clean=False, suspects=frozenset({2, 3}))
    rows = [row(1), row(2), row(3), row(4)]

    assert scene.careful.publish(rows, 0) == 0
    assert scene.journal.record_ids == [2, 3, 1, 4]
    scene.journal.written = True
    assert scene.careful.publish(rows, 0) == 4
    assert (scene.publisher.published, scene.trial.sent) == ([1, 4], [2, 3])

    crashed = DeliveryFault(own_fault("CRASHED_DAEMON"), "died of it twice")
    scene.trial.reports = [Report(row(2), None, 0, 9, True), Report(row(3), crashed, None, None, True)]
    scene.publisher.deliver([1, 4])
    reports = scene.careful.take_reports()
    assert {report.record.id: report.error for report in reports} == {1: None, 2: None, 3: crashed, 4: None}
    assert scene.told == ["careful_start", "crashing_row_found"]

    # Row 2 is cleared: should it come again, it goes as all others do.
    scene.careful.publish([row(2)], 0)
    assert scene.journal.record_ids == [3, 2]
    # Row 3 goes apart again: its death may not have been written yet, should this process end, or it is replayed.
    scene.careful.publish([row(3)], 0)
    assert scene.trial.sent == [2, 3, 3]


def test_care_ends_when_as_many_rows_went_as_were_in_the_air_and_the_record_is_cleared(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    at = 0
    rows = [row(number) for number in range(ROWS_MAX + 500)]
    while "careful_end" not in scene.told:
        before = at
        at = scene.careful.publish(rows, at)
        scene.journal.written = True
        scene.publisher.deliver(range(before, at))
        scene.careful.take_reports()
        assert at <= ROWS_MAX
    assert at == ROWS_MAX
    assert scene.journal.record_ids == []
    assert scene.careful.publish(rows, at) == len(rows)


def test_care_ends_after_a_minute_of_quiet_but_not_before_anything_was_reported(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False)
    scene.careful.publish([row(1)], 0)
    scene.now = 10 * CAREFUL_SECONDS
    scene.careful.take_reports()
    assert "careful_end" not in scene.told
    scene.journal.written = True
    scene.careful.publish([row(1)], 0)
    scene.publisher.deliver([1])
    scene.careful.take_reports()
    scene.now += CAREFUL_SECONDS
    scene.careful.take_reports()
    assert scene.told[-1] == "careful_end"


def test_care_does_not_end_while_a_trial_owes_an_answer(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=False, suspects=frozenset({1}))
    scene.careful.publish([row(1)], 0)
    scene.publisher.deliver(range(100, 100 + ROWS_MAX))
    scene.careful.take_reports()
    assert scene.told == ["careful_start"]


def test_a_suspect_whose_turn_comes_after_the_end_of_care_goes_apart_and_stays_recorded_while_others_go_freely(
    scene: Scene,
) -> None:
    scene.journal.now = Opening(was_clean=False, suspects=frozenset({7, 8}))
    scene.careful.publish([row(1)], 0)
    scene.journal.written = True
    scene.careful.publish([row(1)], 0)
    scene.publisher.deliver([1, *range(100, 100 + ROWS_MAX)])
    scene.careful.take_reports()
    assert scene.told == ["careful_start", "careful_end"]
    assert scene.journal.record_ids == [7, 8]

    assert scene.careful.publish([row(2), row(7), row(3)], 0) == 3
    assert (scene.publisher.published, scene.trial.sent) == ([1, 2, 3], [7])
    assert scene.careful.publish_alone(row(8))
    assert (scene.publisher.alone, scene.trial.sent) == ([], [7, 8])

    crashed = DeliveryFault(own_fault("CRASHED_DAEMON"), "died of it twice")
    scene.trial.reports = [Report(row(7), None, 0, 9, True), Report(row(8), crashed, None, None, True)]
    assert [report.error for report in scene.careful.take_reports()] == [None, crashed]
    assert scene.told[2:] == ["crashing_row_found"]
    # The first is cleared; the other one may be replayed.
    assert scene.careful.publish([row(7), row(8)], 0) == 2
    assert (scene.publisher.published, scene.trial.sent) == ([1, 2, 3, 7], [7, 8, 8])
    assert scene.journal.record_ids == [7, 8], "nothing more is written"


def test_a_new_ownership_begins_anew(scene: Scene) -> None:
    scene.journal.now = Opening(was_clean=True)
    assert scene.careful.publish([row(1)], 0) == 1
    scene.journal.now = None
    assert scene.careful.publish([row(2)], 0) == 0
    scene.journal.now = Opening(was_clean=False, suspects=frozenset({2}))
    assert scene.careful.publish([row(2)], 0) == 1
    assert scene.trial.sent == [2]


@pytest.mark.parametrize("verb", ["purge", "rebuild"])
def test_a_producer_that_is_replaced_ends_the_trial_too(scene: Scene, verb: str) -> None:
    scene.journal.now = Opening(was_clean=False, suspects=frozenset({1}))
    scene.careful.publish([row(1)], 0)
    getattr(scene.careful, verb)()
    assert scene.trial.abandoned == 1


def test_what_is_recorded_is_bounded_and_the_window_is_always_in_it() -> None:
    ids = recorded([9_001, 9_002], set(range(5_000)))
    assert len(ids) == SUSPECTS_MAX
    assert ids[-2:] == [9_001, 9_002]
