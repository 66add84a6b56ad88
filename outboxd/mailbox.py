"""The mailbox: where the daemon's threads leave events for the relay's loop."""

from __future__ import annotations

from queue import Empty, SimpleQueue

from outboxd.policy.exchange.messages import Event


class QueueMailbox:
    """Implements the relay's `Mailbox` on a queue whose waiting needs no Python lock."""

    def __init__(self) -> None:
        """Start empty."""
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._waiting: list[Event] = []
        self.post = self._queue.put

    def take(self) -> list[Event]:
        """Return what came since the last call, without waiting."""
        events, self._waiting = self._waiting, []
        while not self._queue.empty():
            events.append(self._queue.get())
        return events

    def wait(self, timeout_seconds: float) -> None:
        """Return when something is there, or after `timeout_seconds`."""
        if self._waiting or timeout_seconds <= 0:
            return
        try:
            self._waiting.append(self._queue.get(timeout=timeout_seconds))
        except Empty:
            return
