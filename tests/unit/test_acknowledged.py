"""How many acknowledged records are gone at least, from a sample of their places and the log as it is now."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from outboxd.kafka.cluster import acknowledged as module
from outboxd.kafka.cluster.acknowledged import AcknowledgedPlaces, lost_records
from outboxd.kafka.cluster.log_reader import LogReader, LogRecord, Partition
from outboxd.policy.exchange.auditing import Bounds, Identity
from outboxd.policy.exchange.messages import Report
from tests.unit.records import record

AT: Partition = ("orders", 0)


class FakeLog:
    """A log that was cut at an offset, and written anew up to another."""

    def __init__(self, cut_at: int, high: int, low: int = 0, log_end: int | None = None) -> None:
        self._cut_at = cut_at
        self._bounds = Bounds(low, high, log_end)
        self.read_places = 0

    def bounds(self, partition: Partition) -> Bounds | None:
        return self._bounds if partition == AT else None

    def read(self, wanted: Mapping[Partition, Sequence[int]]) -> Iterator[LogRecord]:
        for (topic, partition), offsets in wanted.items():
            for offset in offsets:
                self.read_places += 1
                row = offset if offset < self._cut_at else 1_000_000 + offset
                yield LogRecord(topic, partition, offset, None, Identity(row, str(row)))

    def close(self) -> None: ...


def lost(log: FakeLog, offsets: Sequence[int], at: Partition = AT) -> int:
    return lost_records(cast(LogReader, log), at, [(offset, Identity(offset, str(offset))) for offset in offsets])


@pytest.mark.parametrize(
    ("cut_at", "high", "expected"),
    [
        (2_000, 2_000, 0),  # Nothing was cut.
        (700, 700, 300),  # Nobody wrote since: the log's end is the cut.
        (0, 0, 1_000),
        (700, 5_000, 1_000 - 704),  # Written anew above: the lowest sample that is gone bounds it.
        (999, 999, 1),
    ],
)
def test_the_loss_is_bounded_from_below(cut_at: int, high: int, expected: int) -> None:
    log = FakeLog(cut_at, high)
    assert lost(log, [*range(0, 1_000, 16), 999]) == expected
    assert log.read_places <= 8


def test_what_retention_took_is_no_loss() -> None:
    assert lost(FakeLog(2_000, 2_000, low=1_500), range(0, 1_000, 16)) == 0


def test_what_stands_behind_an_open_transaction_is_no_loss() -> None:
    assert lost(FakeLog(2_000, 500, log_end=2_000), [*range(0, 1_000, 16), 999]) == 0
    assert lost(FakeLog(700, 500, log_end=700), [*range(0, 1_000, 16), 999]) == 300


def test_a_partition_that_is_not_there_any_more_is_not_judged() -> None:
    assert lost(FakeLog(0, 0), [1, 2], ("deleted", 0)) == 0


def test_places_below_earlier_ones_are_a_cut_log_and_the_earlier_ones_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, int, int]] = []
    looked = threading.Event()

    def on_lost(topic: str, partition: int, records: int) -> None:
        told.append((topic, partition, records))
        looked.set()

    places = AcknowledgedPlaces(dict, "default", on_lost)
    monkeypatch.setattr(module, "LogReader", lambda *_, **__: FakeLog(cut_at=700, high=720))
    for offset in (*range(600, 1_000), *range(700, 710)):
        places.note([Report(record(offset), None, 0, offset)])
    assert looked.wait(10)
    places.close()
    assert told == [("orders", 0, 280)]


@pytest.mark.parametrize(("are_chained", "alone"), [(True, False), (False, True), (True, True)])
def test_places_that_two_producers_tell_of_between_each_other_are_no_cut_log(
    monkeypatch: pytest.MonkeyPatch, *, are_chained: bool, alone: bool
) -> None:
    places = AcknowledgedPlaces(dict, "default", lambda *_: None)
    suspected: list[int] = []
    monkeypatch.setattr(places, "suspect", lambda: suspected.append(1))
    for offset in (*range(0, 1_000, 10), *range(2_000, 3_000, 10)):
        places.note([Report(record(offset + 500), None, 0, offset + 500)])
        places.note([Report(record(offset), None, 0, offset, alone)], are_chained=are_chained)
    assert suspected == []
    places.note([Report(record(5), None, 0, 5, alone)], are_chained=are_chained)
    assert suspected == [1]


def test_of_very_many_partitions_the_oldest_are_forgotten_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARTITIONS_MAX", 3)
    places = AcknowledgedPlaces(dict, "default", lambda *_: None)
    for partition in range(10):
        for are_chained in (False, True):
            places.note([Report(record(9), None, partition, 9)], are_chained=are_chained)
    assert len(places._samples) == 3
    assert len(places._last_offsets) == 6


def test_a_client_that_cannot_be_made_is_tried_again_and_the_samples_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    looked = threading.Event()
    made: list[object] = []

    def on_lost(topic: str, partition: int, records: int) -> None:
        told.append((topic, partition, records))
        looked.set()

    def make(*properties: object, **_: object) -> FakeLog:
        made.append(properties)
        if len(made) < 3:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.ca.location failed: No such file"))
        return FakeLog(cut_at=700, high=720)

    places = AcknowledgedPlaces(dict, "default", on_lost)
    monkeypatch.setattr(module, "LogReader", make)
    monkeypatch.setattr(module, "ATTEMPT_PAUSE_SECONDS", 0.01)
    for offset in range(600, 1_000):
        places.note([Report(record(offset), None, 0, offset)])
    places.suspect()
    assert looked.wait(10)
    places.close()
    assert (len(made), told) == (3, [("orders", 0, 280)])


def test_suspicions_that_come_faster_than_they_are_looked_into_share_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[object] = []
    began, may_go_on, through = threading.Event(), threading.Event(), threading.Event()

    def make(*properties: object, **_: object) -> FakeLog:
        looks.append(properties)
        began.set()
        may_go_on.wait(10)
        if len(looks) == 1 + module.WAITING_MAX:
            through.set()
        return FakeLog(cut_at=2_000, high=2_000)

    monkeypatch.setattr(module, "LogReader", make)
    places = AcknowledgedPlaces(dict, "default", lambda *_: None)

    def suspect(offset: int) -> None:
        places.note([Report(record(offset), None, 0, offset)])
        places.suspect()

    before = set(threading.enumerate())
    suspect(0)
    assert began.wait(10)
    for offset in range(1, 30):
        suspect(offset)
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["acknowledged"]
    may_go_on.set()
    assert through.wait(10)
    places.close()
    assert len(looks) == 1 + module.WAITING_MAX


def test_a_look_that_fails_in_an_unknown_way_keeps_no_later_suspicion_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, looked = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    places = AcknowledgedPlaces(dict, "default", lambda *_: looked.set())

    def fail(*_: object, **__: object) -> FakeLog:
        raise RuntimeError("a surprise")

    monkeypatch.setattr(module, "LogReader", fail)
    places.note([Report(record(1), None, 0, 1)])
    places.suspect()
    assert ended.wait(10)
    monkeypatch.setattr(module, "LogReader", lambda *_, **__: FakeLog(cut_at=0, high=0))
    places.note([Report(record(2), None, 0, 2)])
    places.suspect()
    assert looked.wait(10)
    places.close()
