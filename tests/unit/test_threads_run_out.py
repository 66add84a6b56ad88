"""Where no thread is to be had, the daemon ends by a sentence that says so, or goes on; it neither hangs nor calls it a
bug, or a mistake of the configuration, after which nobody would start it again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError, KafkaException

from outboxd.cli.main import main
from outboxd.errors import EXIT_UNAVAILABLE, ConfigError, ThreadsError, threads_error
from outboxd.kafka.checks import inspection
from outboxd.kafka.client import client_config, producer_maker
from outboxd.kafka.client.client_config import check_client
from outboxd.kafka.client.lots import Lots
from outboxd.kafka.client.producer_maker import ProducerMaker
from outboxd.kafka.cluster.acknowledged import AcknowledgedPlaces
from outboxd.policy.exchange.findings import Weight
from outboxd.policy.exchange.messages import Report
from tests.unit.records import record
from tests.unit.test_maintenance import Running, Store

NO_THREAD = "can't start new thread"


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No thread can be started until it is called."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(NO_THREAD)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return lambda: monkeypatch.setattr(threading.Thread, "start", start)


def refusing(code: int) -> Callable[..., None]:
    def make(*_: object, **__: object) -> None:
        raise KafkaException(KafkaError(code, "Failed to create thread"))

    return make


def test_the_command_line_says_that_no_thread_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise RuntimeError(NO_THREAD)

    monkeypatch.setattr(sys.modules["outboxd.cli.main"], "_root", run)
    assert main([]) == EXIT_UNAVAILABLE
    said = capsys.readouterr().err
    assert "no thread can be started" in said
    assert "a bug" not in said
    assert threads_error(RuntimeError("another")) is None


def test_a_client_without_threads_is_no_mistake_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_config, "Producer", refusing(KafkaError._CRIT_SYS_RESOURCE))
    with pytest.raises(ThreadsError, match=r"no thread can be started .*TasksMax"):
        check_client({})
    monkeypatch.setattr(client_config, "Producer", refusing(KafkaError._INVALID_ARG))
    with pytest.raises(ConfigError, match="the client refuses"):
        check_client({})
    monkeypatch.setattr(inspection, "AdminClient", refusing(KafkaError._CRIT_SYS_RESOURCE))
    (finding,) = inspection.inspect({}, {})
    assert finding.weight is Weight.UNAVAILABLE
    monkeypatch.setattr(producer_maker, "Producer", refusing(KafkaError._CRIT_SYS_RESOURCE))
    maker = ProducerMaker()
    assert maker.try_to_make({}) is producer_maker.NO_PRODUCER
    assert maker.failure.told is not None
    assert "TasksMax" in maker.failure.told


def test_a_question_that_somebody_waits_for_is_asked_all_the_same(exhausted: Callable[[], None]) -> None:
    asked: list[tuple[str, list[int]]] = []
    lots: Lots[int] = Lots(
        "questions", lambda lot: asked.append((threading.current_thread().name, lot)), may_wait=False
    )
    lots.add([1, 2])
    assert asked == [(threading.main_thread().name, [1, 2])]
    assert not lots.is_busy


def test_a_question_that_nobody_waits_for_is_asked_with_the_next(exhausted: Callable[[], None]) -> None:
    asked: list[int] = []
    done = threading.Event()

    def work(lot: list[int]) -> None:
        asked.extend(lot)
        done.set()

    lots: Lots[int] = Lots("questions", work, may_wait=True)
    lots.add([1])
    assert (asked, lots.is_busy) == ([], False)
    exhausted()
    lots.add([2])
    assert done.wait(10)
    assert asked == [1, 2]


def test_a_question_that_fails_in_an_unknown_way_keeps_no_later_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, done = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())

    def work(lot: list[int]) -> None:
        if lot == [1]:
            raise RuntimeError("a surprise")
        done.set()

    lots: Lots[int] = Lots("questions", work, may_wait=True)
    lots.add([1])
    assert ended.wait(10)
    lots.add([2])
    assert done.wait(10)


def test_a_suspicion_waits_for_a_thread(exhausted: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    places = AcknowledgedPlaces(dict, "here", lambda *_: None)
    monkeypatch.setattr(places, "_check", lambda taken: looked.set())
    places.note([Report(record(1), None, 0, 5, False)])
    places.suspect()
    places.note([])
    assert not looked.is_set()
    exhausted()
    places.note([])
    assert looked.wait(10)
    assert not places._taken


def test_a_job_that_gets_no_thread_is_told_of_and_runs_at_its_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, [1]

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "housekeeping" and refused:
            refused.pop()
            raise RuntimeError(NO_THREAD)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    store = Store()
    daemon = Running(store)
    daemon.jobs.start()
    try:
        assert daemon.told.acquire(timeout=10)
        assert daemon.events == [("job_failed", {"job": "gauges", "cause": f"RuntimeError: {NO_THREAD}"})]
        daemon.jobs._scheduler.modify_job("gauges", next_run_time=datetime.now(UTC))
        assert store.measured.acquire(timeout=10)
    finally:
        daemon.jobs.stop()


def test_what_could_not_start_can_be_stopped(exhausted: Callable[[], None]) -> None:
    daemon = Running(Store())
    with pytest.raises(RuntimeError, match=NO_THREAD):
        daemon.jobs.start()
    daemon.jobs.stop()
    exhausted()
