"""A service manager's notify socket, as systemd has one: what a daemon says there, in order."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PIECE_SECONDS = 0.05


class NotifySocket:
    """Receives datagrams of sd_notify(3); `said` are their assignments, such as `READY=1`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self._said_at: dict[str, float] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PIECE_SECONDS)

    def close(self) -> None:
        self._socket.close()

    def take(self) -> None:
        """Take what has come, and wait for a moment where nothing has."""
        try:
            datagram = self._socket.recv(65_536).decode()
        except TimeoutError:
            return
        for assignment in datagram.splitlines():
            self.said.append(assignment)
            self._said_at[assignment] = time.monotonic()

    def forget(self) -> None:
        """Take all that has come by now, and forget it."""
        self.take_while(lambda: False)
        self.said.clear()

    def take_while(self, condition: Callable[[], bool], *, seconds_max: float = 0.2) -> None:
        """Take what comes while the condition holds; where it never does, until there is nothing any more."""
        deadline = time.monotonic() + seconds_max
        before = -1
        while condition() or before != len(self.said):
            before = len(self.said)
            self.take()
            if condition() and time.monotonic() > deadline:
                raise TimeoutError(f"still so after {seconds_max:g} s; it said {self.said[-20:]}")

    def wait_for(self, beginning: str, *, timeout_seconds: float = 20.0) -> str:
        """Wait until something that begins so was said since the last `forget`; return it."""
        self.take_while(lambda: not any(each.startswith(beginning) for each in self.said), seconds_max=timeout_seconds)
        return next(each for each in self.said if each.startswith(beginning))

    def wait_for_silence(self, assignment: str, *, seconds: float, timeout_seconds: float = 20.0) -> None:
        """Wait until this was not said for so long."""
        began_at = time.monotonic()
        self.take_while(
            lambda: time.monotonic() - self._said_at.get(assignment, began_at) < seconds, seconds_max=timeout_seconds
        )


@pytest.fixture
def notify_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    """A notify socket that daemons of this test, children or not, are told of."""
    made = NotifySocket(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    try:
        yield made
    finally:
        made.close()
