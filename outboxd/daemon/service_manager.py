"""What the service manager is told (sd_notify(3)): ready, reloading, stopping, a sentence of status, and that work
advances.

All but a reload is told on the relay's thread, so a relay that does not turn tells nothing; and a turning relay says
that it is well only while no other thread of the daemon is stuck (see `Watched`). A service manager that stands still
itself takes nothing, and nobody waits for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STATUS_PAUSE_SECONDS = 2.0
START_BEAT_SECONDS = 5.0
START_EXTENSION_SECONDS = 60.0
"""While the daemon starts, or waits for a server to start with, each beat asks for so much more time."""

Watched = Mapping[str, Callable[[], float]]
"""Name of a thread → for how many seconds its job under way has lasted; 0 while it waits for one."""


@dataclass(slots=True)
class ServiceManager:
    """Speaks to systemd where there is one, else does nothing.

    Attributes:
        watched: the threads that may not be stuck for the watchdog to be told.
        environ: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` in it say what is wanted.
    """

    watched: Watched = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    monotonic: Callable[[], float] = time.monotonic
    is_listening: bool = False
    is_ready: bool = False
    is_stopping: bool = False
    watchdog_seconds: float = 0.0
    _told_alive_at: float = float("-inf")
    _told_status_at: float = float("-inf")
    _told_sentence: str = ""
    _turns: int = -1
    _owed: tuple[str, ...] = ()
    """What was not taken, and has to be."""

    def __post_init__(self) -> None:
        """Read what the service manager asks for."""
        self.is_listening = bool(self.environ.get("NOTIFY_SOCKET"))
        if self.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog_seconds = int(self.environ.get("WATCHDOG_USEC") or 0) / 1e6

    def ready(self, sentence: str) -> None:
        """The first fetch succeeded (or another daemon owns the outbox) and a broker answered; or a reload ended.

        `sentence` says how things are: whoever waits for the start looks at the status right then.
        """
        self.is_ready = True
        self._told_sentence = sentence
        self._insist("READY=1", f"STATUS={sentence}")

    def reloading(self) -> None:
        """A reload begins. `ready` ends it."""
        # The clock's name of systemd 253 and later, which wants to know when; older ones ignore it.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_seconds: float) -> None:
        """The end has begun, and takes so long at most. Said once."""
        if not self.is_stopping:
            self.is_stopping = True
            self._insist("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_seconds * 1e6)}")

    def advanced(self, turns: int, sentence: Callable[[], str]) -> None:
        """The loop has made so many turns; `sentence()` says how things are. Costs nothing while nothing is due."""
        if not self.is_listening or turns == self._turns:
            return
        self._turns = turns
        now = self.monotonic()
        if now - self._told_alive_at >= self._beat_seconds and self.stuck() is None:
            self._told_alive_at = now
            self._tell(*self._alive())
        if now - self._told_status_at >= STATUS_PAUSE_SECONDS:
            self._told_status_at = now
            if self._owed:
                self._insist(*self._owed)
            told = sentence()
            if told != self._told_sentence and self._tell(f"STATUS={told}"):
                self._told_sentence = told

    def stuck(self) -> str | None:
        """The name of a thread whose job has lasted for longer than the watchdog's own period; None: all are well."""
        if not self.watchdog_seconds:
            return None
        return next((name for name, lasted in self.watched.items() if lasted() > self.watchdog_seconds), None)

    @property
    def _beat_seconds(self) -> float:
        if not self.is_ready:
            return min(START_BEAT_SECONDS, self.watchdog_seconds / 3 or START_BEAT_SECONDS)
        return self.watchdog_seconds / 3 or float("inf")

    def _alive(self) -> list[str]:
        alive = ["WATCHDOG=1"] if self.watchdog_seconds else []
        if not self.is_ready:
            alive.append(f"EXTEND_TIMEOUT_USEC={round(START_EXTENSION_SECONDS * 1e6)}")
        return alive

    def _insist(self, *assignments: str) -> None:
        """Tell what no later beat says: where it is not taken it is told again with the next status."""
        self._owed = () if self._tell(*assignments) else assignments

    def _tell(self, *assignments: str) -> bool:
        """Tell at once or not at all; return whether it was taken."""
        if not self.is_listening or not assignments:
            return True
        address = self.environ["NOTIFY_SOCKET"]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                # An abstract address is written with `@` for the NUL that it begins with.
                datagrams.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
                datagrams.send("\n".join(assignments).encode(errors="backslashreplace"))
        except OSError:
            return False
        return True
