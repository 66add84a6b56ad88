"""How many transactions may be unsettled, and when the next one states rows that cannot be settled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

from outboxd.kafka.transactional.handover import Handover
from outboxd.kafka.transactional.progress import RESTATED_FROM, RESTATING_MAX, UNSETTLED_MAX
from outboxd.kafka.transactional.transactions import Transactions
from outboxd.policy.exchange.messages import ProgressRow, Recovered, Report
from outboxd.policy.rows.records import Record
from outboxd.policy.rows.transaction_size import TransactionSize
from tests.unit.records import record

ROW = ProgressRow(1, 0, 10, False, 11)
OTHER = ProgressRow(2, 0, 20, False, 22)


class Scene:
    """A handover whose worker's jobs are done when the test says so; each of them commits one transaction."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.client = SimpleNamespace(number=0)
        self.stated: list[Sequence[ProgressRow]] = []
        self.handover = Handover(
            cast(Transactions, cast(Any, SimpleNamespace(client=self.client, deliver=self._deliver))),
            self.jobs,
            threading.Event(),
            TransactionSize(100, 1_000),
            post=lambda _: None,
            monotonic=lambda: 0.0,
        )
        self.handover.answer(Recovered(0, []))

    def _deliver(self, records: Sequence[Record], restated: Sequence[ProgressRow]) -> list[Report]:
        self.client.number += 1
        self.stated.append(restated)
        return [Report(each, None, 0, each.id) for each in records]

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
