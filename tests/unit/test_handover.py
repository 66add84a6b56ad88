"""How many transactions may be unsettled, when the next one states rows that cannot be settled, and what is told of a
batch before its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

from outboxd.kafka.transactional.handover import EndedBatch, Handover
from outboxd.kafka.transactional.progress import RESTATED_FROM, RESTATING_MAX, UNSETTLED_MAX
from outboxd.kafka.transactional.transactions import Tell, Transactions
from outboxd.policy.exchange.messages import DeliveryFault, Event, ProgressRow, Recovered, Report
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import Record
from outboxd.policy.rows.transaction_size import TransactionSize
from tests.unit.records import record

ROW = ProgressRow(1, 0, 10, False, 11)
OTHER = ProgressRow(2, 0, 20, False, 22)
FAULT = DeliveryFault(fault_of(10), "too large")


class Scene:
    """A handover whose worker's jobs are done when the test says so; each of them commits one transaction, or what
    `parts` says: as many rows each, none where it is aborted.
    """

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.client = SimpleNamespace(number=0)
        self.stated: list[Sequence[ProgressRow]] = []
        self.parts: list[int] = []
        self.failing: set[int] = set()
        self.between: Callable[[], None] = lambda: None
        self.posted = 0
        self.posted_within: list[int] = []
        self.handover = Handover(
            cast(Transactions, cast(Any, SimpleNamespace(client=self.client, deliver=self._deliver))),
            self.jobs,
            threading.Event(),
            TransactionSize(100, 1_000),
            post=self._post,
            monotonic=lambda: 0.0,
        )
        self.handover.answer(Recovered(0, []))

    def _post(self, _: Event) -> None:
        self.posted += 1

    def _deliver(self, records: Sequence[Record], restated: Sequence[ProgressRow], tell: Tell) -> list[Report]:
        for rows in self.parts:
            self.client.number += rows > 0
            tell([self._report(each) for each in records[:rows]])
            records = records[rows:]
            self.posted_within.append(self.posted)
            self.between()
        self.client.number += 1
        self.stated.append(restated)
        return [self._report(each) for each in records]

    def _report(self, each: Record) -> Report:
        return Report(each, FAULT if each.id in self.failing else None, 0, each.id)

    def send(self, count: int) -> int:
        """Give rows one by one; return how many transactions they made."""
        before = len(self.stated)
        for _ in range(count):
            self.handover.add([record(1)], 1)
            while not self.jobs.empty():
                job = self.jobs.get()
                assert job is not None
                job()
        return len(self.stated) - before


def test_no_more_than_so_many_are_unsettled_and_one_more_goes_for_each_new_row_that_is_to_be_stated_again() -> None:
    scene = Scene()
    assert scene.send(100) == UNSETTLED_MAX
    scene.handover.restate([ROW])
    assert scene.send(10) == 1
    assert scene.stated[-1] == [ROW]
    assert scene.send(10) == 0
    scene.handover.restate([])
    assert scene.send(10) == 0
    scene.handover.settled(UNSETTLED_MAX)
    assert scene.send(100) == UNSETTLED_MAX - 1


def test_rows_that_come_one_after_the_other_let_only_a_few_more_go() -> None:
    scene = Scene()
    scene.send(100)
    sent = 0
    for number in range(100):
        scene.handover.restate([ProgressRow(each, 0, 10, False, 11) for each in range(number + 1)])
        sent += scene.send(3)
    assert sent == RESTATING_MAX


def test_rows_are_stated_again_no_sooner_than_it_is_needed_and_that_is_told_with_the_transaction() -> None:
    scene = Scene()
    scene.handover.restate([ROW, OTHER])
    scene.send(RESTATED_FROM + 1)
    assert [len(rows) for rows in scene.stated] == [0] * RESTATED_FROM + [2]
    told = [scene.handover.ended.get() for _ in scene.stated]
    assert (told[-1].number, told[-1].restated) == (RESTATED_FROM + 1, [ROW, OTHER])
    assert not any(each.restated for each in told[:-1])


def test_what_a_part_of_a_batch_committed_is_told_with_its_transaction_and_once() -> None:
    scene = Scene()
    scene.parts = [2, 0, 1]
    scene.handover.add([record(each) for each in range(1, 6)], 5)
    job = scene.jobs.get()
    assert job is not None
    posted = scene.posted
    job()
    told = [scene.handover.ended.get() for _ in range(scene.handover.ended.qsize())]
    assert [([report.record.id for report in each.reports], each.number) for each in told] == [
        ([1, 2], 1),
        ([3], 2),
        ([4, 5], 3),
    ]
    assert not any(each.has_failed for each in told)
    assert scene.posted_within == [posted + 1, posted + 2, posted + 3], "an abort wakes the relay too"


def test_no_other_batch_begins_before_the_relay_has_heard_of_every_failure_that_was_told_within_one() -> None:
    scene = Scene()
    scene.parts = [1, 1]
    scene.failing = {1, 3}
    scene.handover.add([record(each) for each in (1, 2, 3)], 3)
    scene.between = lambda: scene.handover.add([record(9)], 1)
    job = scene.jobs.get()
    assert job is not None
    job()
    assert scene.jobs.empty(), "the relay has heard of neither failure"
    taken: list[EndedBatch] = []
    scene.handover.take_ended(taken)
    assert [each.has_failed for each in taken] == [True, False, True]
    assert [each.id for each in scene.handover.take_back(1)] == [9, 9]
    scene.handover.add([record(10)], 1)
    assert scene.jobs.empty(), "nor of the second one"
    assert [each.id for each in scene.handover.take_back(1)] == [10]
    scene.handover.add([record(11)], 1)
    assert not scene.jobs.empty()


def test_each_transaction_of_a_batch_counts_among_the_unsettled() -> None:
    scene = Scene()
    scene.parts = [1] * (UNSETTLED_MAX - 1)
    scene.handover.add([record(each) for each in range(1, UNSETTLED_MAX + 1)], 1)
    job = scene.jobs.get()
    assert job is not None
    job()
    assert scene.send(1) == 0
    scene.handover.settled(1)
    assert not scene.jobs.empty()


def test_nobody_hears_of_what_is_committed_by_a_worker_that_is_gone() -> None:
    scene = Scene()
    scene.parts = [1]
    scene.handover.add([record(1), record(2)], 2)
    job = scene.jobs.get()
    assert job is not None
    posted = scene.posted
    scene.handover.end()
    job()
    assert scene.handover.ended.empty()
    assert scene.posted == posted
