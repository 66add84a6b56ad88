"""When a row that outboxd refuses is told of, where transactions have earlier rows of its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from outboxd.kafka.transactional.refusals import Key, Refusals, key_of
from outboxd.kafka.transactional.verdicts import sent_back
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from tests.unit.records import record

INVALID = DeliveryFault(own_fault("INVALID_HEADERS"), "no headers")


class Scene:
    """Refusals beside a worker whose keys the test sets."""

    def __init__(self) -> None:
        self.before: set[Key] = set()
        self.refusals = Refusals(lambda: set(self.before))

    def refuse(self, record_id: int, key: str | None, *accepted: int) -> None:
        self.refusals.begin()
        self.refusals.add(record(record_id, key=key), INVALID, [record(each, key=key) for each in accepted])

    def put_behind(self, record_id: int, key: str) -> None:
        behind = record(record_id, key=key)
        assert key_of(behind) in self.refusals.begin()
        self.refusals.put_behind(behind)

    def take(self, *reports: Report) -> list[tuple[int, str]]:
        told = self.refusals.take(reports, self.before)
        return [(report.record.id, report.error.fault.name) for report in told if report.error]


def delivered(record_id: int) -> Report:
    return Report(record(record_id, key="k"), None, 0, 7)


def refused(record_id: int) -> Report:
    return Report(record(record_id, key="k"), INVALID, 0, None, True)


def gone_back(record_id: int) -> Report:
    return sent_back(record(record_id, key="k"))


def test_a_refused_row_is_told_at_once_where_nothing_of_its_key_is_before_it() -> None:
    scene = Scene()
    scene.before = {("orders", "other")}
    scene.refuse(1, "k")
    scene.put_behind(2, "k")
    scene.refuse(3, None)
    assert scene.take() == [(1, "INVALID_HEADERS"), (2, "SENT_BACK"), (3, "INVALID_HEADERS")]
    assert scene.refusals.begin() == set()
    assert scene.take() == []


@pytest.mark.parametrize("where", ["with the worker", "accepted with it"])
def test_a_refused_row_is_told_once_what_was_before_it_in_its_key_is_delivered(where: str) -> None:
    scene = Scene()
    if where == "with the worker":
        scene.before = {("orders", "k")}
        scene.refuse(2, "k")
    else:
        scene.refuse(2, "k", 1)
        scene.before = {("orders", "k")}
    scene.put_behind(3, "k")
    assert scene.take() == []
    # A part of a batch is told before the others of the key are through.
    assert scene.take(delivered(1)) == []
    scene.put_behind(4, "k")
    scene.before = set()
    assert scene.take() == [(2, "INVALID_HEADERS"), (3, "SENT_BACK"), (4, "SENT_BACK")]
    assert scene.refusals.begin() == set()


@pytest.mark.parametrize("how", [refused, gone_back])
def test_a_refused_row_is_sent_back_where_an_earlier_one_of_its_key_was_not_delivered(
    how: Callable[[int], Report],
) -> None:
    scene = Scene()
    scene.before = {("orders", "k")}
    scene.refuse(2, "k")
    scene.put_behind(3, "k")
    assert scene.take(how(1)) == [(2, "SENT_BACK"), (3, "SENT_BACK")]
    assert scene.take() == []


def test_a_refused_row_is_sent_back_too_where_the_earlier_ones_report_comes_with_it() -> None:
    scene = Scene()
    scene.refuse(2, "k")
    assert scene.take(refused(1)) == [(2, "SENT_BACK")]


def test_rows_without_a_key_stand_behind_none() -> None:
    scene = Scene()
    scene.refuse(2, None)
    without: Any = Report(record(1, key=None), INVALID, 0, None, True)
    assert scene.take(without) == [(2, "INVALID_HEADERS")]
