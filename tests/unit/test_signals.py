"""What SIGTERM, SIGINT and SIGHUP do to a daemon, and to what tidies up after itself."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from outboxd.daemon.signals import ENDING, Signals, doing, ending_as_an_interrupt, ignore_signals, note_hangups

STOPPED, RELOADED = "stopped", "reloaded"
SECONDS_MAX = 20.0


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    former = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, action in former.items():
        signal.signal(number, action)


class Daemon:
    """What is told of the signals that are taken."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self.signals = Signals(lambda: self._tell(STOPPED), lambda: self._tell(RELOADED))

    def _tell(self, what: str) -> None:
        self._told.put((what, threading.current_thread() is threading.main_thread()))

    def told(self, count: int) -> list[tuple[str, bool]]:
        """Wait for so many words; each with whether it was said on the main thread."""
        return [self._told.get(timeout=SECONDS_MAX) for _ in range(count)]

    @contextmanager
    def running(self) -> Iterator[None]:
        others = set(threading.enumerate())
        with self.signals.taken():
            reloads = set(threading.enumerate()) - others
            try:
                yield
            finally:
                self.signals.end_hangups()
                for thread in reloads:
                    thread.join(SECONDS_MAX)
                    assert not thread.is_alive()

    def has_said_all(self) -> bool:
        return self._told.empty()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_each_signal_that_ends_is_told_at_once_by_the_handler_itself(number: signal.Signals) -> None:
    daemon = Daemon()
    with daemon.running():
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert daemon.told(2) == [(STOPPED, True)] * 2
    assert daemon.has_said_all()


def test_each_hangup_reloads_once_on_a_thread_of_its_own_until_the_daemon_closes() -> None:
    daemon = Daemon()
    with daemon.running():
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert daemon.told(3) == [(RELOADED, False)] * 3
        daemon.signals.end_hangups()
        signal.raise_signal(signal.SIGHUP)
    assert daemon.has_said_all()


@pytest.mark.parametrize("came", [True, False])
def test_a_hangup_that_came_before_the_daemon_took_its_signals_reloads_once_and_none_is_made_up(came: bool) -> None:
    daemon = Daemon()
    note_hangups()
    for _ in range(2 if came else 0):
        signal.raise_signal(signal.SIGHUP)
    with daemon.running():
        if came:
            assert daemon.told(1) == [(RELOADED, False)]
    assert daemon.has_said_all()


def test_after_the_daemon_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with Daemon().running():
        assert not {signal.getsignal(number) for number in ENDING} & set(before)
    assert [signal.getsignal(number) for number in ENDING] == before


def test_what_ends_as_an_interrupt_does_so_by_each_signal_and_only_within() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    for number in ENDING:
        with pytest.raises(KeyboardInterrupt), ending_as_an_interrupt():
            signal.raise_signal(number)
        assert [signal.getsignal(each) for each in ENDING] == before


def test_on_another_thread_no_handler_is_touched() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            note_hangups()
            with doing(dict.fromkeys(ENDING, signal.SIG_IGN)), Daemon().signals.taken(), ending_as_an_interrupt():
                assert [signal.getsignal(number) for number in ENDING] == before
        except BaseException as error:  # noqa: BLE001 - told on the main thread
            failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(SECONDS_MAX)

    assert not failures
    assert [signal.getsignal(number) for number in ENDING] == before


def test_signals_that_are_ignored_end_nothing_any_more() -> None:
    ignore_signals()
    for number in ENDING:
        signal.raise_signal(number)
