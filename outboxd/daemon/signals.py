"""Signals: SIGTERM and SIGINT ask for the end, SIGHUP for a reload.

They arrive on the main thread, in the middle of whatever it does: so a handler only leaves a note for another to find.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks a process for its end, or for a reload. SIGINT among them: a shell without job control starts commands in
the background with it ignored.
"""

Action = Callable[[int, FrameType | None], Any] | int
"""A handler, or SIG_IGN."""


@contextmanager
def doing(actions: Mapping[signal.Signals, Action]) -> Iterator[None]:
    """Within it these signals do that, where this is the main thread; after it they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, action) for number, action in actions.items()}
    try:
        yield
    finally:
        for number, action in former.items():
            signal.signal(number, action)


@contextmanager
def ending_as_an_interrupt() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP end what runs as Ctrl+C does: everything is stopped and removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with doing(dict.fromkeys(ENDING, interrupt)):
        yield


class _NotedHangups:
    """A handler that remembers whether a SIGHUP came."""

    came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True


def note_hangups() -> None:
    """A SIGHUP that comes before a daemon takes its signals makes it reload then; without this it would be its end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, _NotedHangups())


class Signals:
    """Takes the signals of one daemon."""

    def __init__(self, on_stop: Callable[[], None], on_hangup: Callable[[], None]) -> None:
        """`on_stop` is called by the handler itself, so it only leaves a note. `on_hangup` may take its time: it is
        called on a thread of its own, once for each SIGHUP.
        """
        self._on_stop = on_stop
        self._on_hangup = on_hangup
        self._hangups: SimpleQueue[bool] = SimpleQueue()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within it signals are taken, where this is the main thread; after it they do what they did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._on_stop()

        def hang_up(_number: int, _frame: FrameType | None) -> None:
            self._hangups.put(True)

        before = signal.getsignal(signal.SIGHUP)
        threading.Thread(target=self._take_hangups, name="reload", daemon=True).start()
        with doing({signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hang_up}):
            if isinstance(before, _NotedHangups) and before.came:
                self._hangups.put(True)
            yield

    def end_hangups(self) -> None:
        """A SIGHUP that comes from now on changes nothing: what it would change is being closed."""
        self._hangups.put(False)

    def _take_hangups(self) -> None:
        while self._hangups.get():
            self._on_hangup()


def ignore_signals() -> None:
    """Nothing asks this process for its end, or for a reload, any more."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
