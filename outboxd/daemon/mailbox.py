"""The mailbox: where the daemon's threads leave events for the relay's loop."""

from __future__ import annotations

from queue import SimpleQueue

from outboxd.alarm import Alarm
from outboxd.policy.exchange.messages import Event


class QueueMailbox:
    """Implements the relay's `Mailbox`. It is waited for by an alarm: where a signal's handler outlasts the time-out of
    `SimpleQueue.get`, Python 3.11 takes what is left of it, less than nothing, for no limit.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._alarm = Alarm()

    def post(self, event: Event) -> None:
        """Leave an event, on any thread, in a signal's handler too."""
        self._queue.put(event)
        self._alarm.ring()

    def take(self) -> list[Event]:
        """Return what came since the last call, without waiting."""
        # First what rang before: whatever is not taken here rings anew.
        self._alarm.sleep(0.0)
        events: list[Event] = []
        while not self._queue.empty():
            events.append(self._queue.get())
        return events

    def wait(self, timeout_seconds: float) -> None:
        """Return when something is there, or after `timeout_seconds`."""
        if timeout_seconds > 0 and self._queue.empty():
            self._alarm.sleep(timeout_seconds)
