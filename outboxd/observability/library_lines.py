"""What libraries log, as events: lines that differ in their numbers only are told once a minute, with their count.

The Kafka client says for each broker, several times a second, that it cannot be reached.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from outboxd.policy.exchange.messages import TellEvent

QUIET_SECONDS: Final = 60.0
KINDS_MAX: Final = 500
_KIND_CHARS_MAX: Final = 200
_NUMBER: Final = re.compile(r"\d+")


class LibraryLines(logging.Handler):
    """Turns records of the standard logging into the event `library_message`. Any thread may log."""

    def __init__(self, event: TellEvent, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Only warnings and errors are taken."""
        super().__init__(logging.WARNING)
        self._event = event
        self._monotonic = monotonic
        self._quiet: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._kinds_lock = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it, unless one of its kind was told within the last minute."""
        message = record.getMessage() + _reason(record)
        kind = record.name, _NUMBER.sub("#", message)[:_KIND_CHARS_MAX]
        now = self._monotonic()
        with self._kinds_lock:
            until, count = self._quiet.get(kind, (now, 0))
            if now < until:
                self._quiet[kind] = until, count + 1
                return
            self._quiet[kind] = now + QUIET_SECONDS, 0
            while len(self._quiet) > KINDS_MAX:
                self._quiet.popitem(last=False)
        self._event(
            "library_message", logger=record.name, cause=f"{message} (and {count} like it)" if count else message
        )


def _reason(record: logging.LogRecord) -> str:
    """Return what the exception says that it is about: the line itself may name none."""
    error = None if record.exc_info is None else record.exc_info[1]
    if error is None:
        return ""
    return f": {type(error).__name__}: {' '.join(str(error).split())}"
