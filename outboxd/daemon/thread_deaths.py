"""Threads that die of a bug: nobody waits for them, so somebody has to say so; and without some a daemon has to end."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from outboxd.policy.exchange.messages import TellEvent


class ThreadDeaths:
    """Tells of each death, and has the daemon stopped by one that the relay would wait for forever."""

    def __init__(self, event: TellEvent, *, needed: Container[str], stop: Callable[[], None]) -> None:
        """`needed` are the names of threads without which only a new process goes on. `event` and `stop` are called on
        the thread that dies.
        """
        self._event = event
        self._needed = needed
        self._stop = stop
        self.fatal: str | None = None
        """Says which of the needed threads died, and of what; None while all live."""

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within it, each thread that an exception ends is told of."""

        def died(how: threading.ExceptHookArgs) -> None:
            if how.exc_value is not None and how.thread is not None:
                self.tell(how.thread.name, how.exc_value)

        former, threading.excepthook = threading.excepthook, died
        try:
            yield
        finally:
            threading.excepthook = former

    def tell(self, thread: str, error: BaseException) -> None:
        """A bug ended this thread."""
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._event("thread_died", thread=thread, cause=cause, traceback="".join(traceback.format_exception(error)))
        if thread in self._needed:
            self.fatal = f"the thread {thread!r} died: {cause}; the event thread_died in the log has its traceback"
            self._stop()
