"""What the service manager is told (sd_notify(3)): ready, stopping, a sentence of status, and that the loop advances."""

from __future__ import annotations

import os
import time

STATUS_PAUSE_SECONDS = 5.0


class ServiceManager:
    """Speaks to systemd where there is one, else does nothing."""

    def __init__(self) -> None:
        """`NOTIFY_SOCKET` and `WATCHDOG_USEC` in the environment say what is wanted."""
        self.is_listening = bool(os.environ.get("NOTIFY_SOCKET"))
        watchdog_usec = int(os.environ.get("WATCHDOG_USEC", "0") or 0)
        self._watchdog_seconds = watchdog_usec / 1e6 / 3
        self._told_watchdog_at = 0.0
        self._told_status_at = 0.0
        self._told_sentence = ""

    def ready(self) -> None:
        """The first fetch succeeded and a broker answered."""
        self._notify("READY")

    def stopping(self) -> None:
        """The end has begun."""
        self._notify("STOPPING")

    def advanced(self, sentence: str) -> None:
        """The loop advanced; `sentence` says how things are."""
        if not self.is_listening:
            return
        now = time.monotonic()
        if self._watchdog_seconds and now - self._told_watchdog_at >= self._watchdog_seconds:
            self._told_watchdog_at = now
            self._notify("WATCHDOG")
        if sentence != self._told_sentence and now - self._told_status_at >= STATUS_PAUSE_SECONDS:
            self._told_status_at, self._told_sentence = now, sentence
            self._notify("STATUS", sentence)

    def _notify(self, what: str, value: str | int = 1) -> None:
        if not self.is_listening:
            return
        from cysystemd.daemon import Notification, notify

        notify(Notification[what], value)
