"""The mailbox: where the daemon's threads leave events for the relay's loop."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import SimpleQueue

from outboxd.policy.exchange.messages import Event


class QueueMailbox:
    """Implements the relay's `Mailbox`. It is waited for on a lock of its own: where a signal's handler outlasts the
    time-out of `SimpleQueue.get`, Python 3.11 takes what is left of it, less than nothing, for no limit.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._silence = threading.Lock()
        """Held while nothing came since the last look; who posts releases it."""
        self._silence.acquire()

    def post(self, event: Event) -> None:
        """Leave an event, on any thread, in a signal's handler too."""
        self._queue.put(event)
        # It may have been released by another event before this one.
        with suppress(RuntimeError):
            self._silence.release()

    def take(self) -> list[Event]:
        """Return what came since the last call, without waiting."""
        # First, so that whatever is not taken here releases it anew.
        self._silence.acquire(blocking=False)
        events: list[Event] = []
        while not self._queue.empty():
            events.append(self._queue.get())
        return events

    def wait(self, timeout_seconds: float) -> None:
        """Return when something is there, or after `timeout_seconds`."""
        if timeout_seconds <= 0 or not self._queue.empty():
            return
        if self._silence.acquire(timeout=timeout_seconds):
            # What released it is there to be taken.
            return
