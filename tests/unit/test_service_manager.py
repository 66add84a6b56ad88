"""A service manager that stands still is not waited for, and learns afterwards what it has to know."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.daemon.service_manager import STATUS_PAUSE_SECONDS, ServiceManager

QUEUE_MAX = 10_000


class Scene:
    """A daemon's side, and a socket that nobody reads until a test does."""

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.now = 0.0
        self.turns = 0
        self.listening = listening
        self.manager = ServiceManager(environ={"NOTIFY_SOCKET": str(path)}, monotonic=lambda: self.now)

    def fill(self) -> None:
        """Say so much that nothing more is taken."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chatter:
            chatter.setblocking(False)
            chatter.connect(self.listening.getsockname())
            with contextlib.suppress(BlockingIOError):
                for _ in range(QUEUE_MAX):
                    chatter.send(b"STATUS=chatter")
                pytest.fail("its queue has no end")

    def turn(self, sentence: str = "relaying") -> None:
        """Let the relay make a turn, when the next status is due."""
        self.now += STATUS_PAUSE_SECONDS
        self.turns += 1
        self.manager.advanced(self.turns, lambda: sentence)

    def said(self) -> list[str]:
        """Take all that has come."""
        said: list[str] = []
        while True:
            try:
                said += self.listening.recv(4_096).decode().splitlines()
            except BlockingIOError:
                return [each for each in said if each != "STATUS=chatter"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield Scene(tmp_path / "notify", listening)


def test_that_it_is_ready_is_told_again_once_a_manager_that_took_nothing_goes_on(scene: Scene) -> None:
    scene.fill()
    scene.manager.ready("relaying")
    scene.turn()
    assert scene.said() == []
    scene.turn()
    assert scene.said() == ["READY=1", "STATUS=relaying"]
    scene.turn()
    assert scene.said() == []


def test_a_status_that_was_not_taken_is_told_again_and_one_that_was_is_not(scene: Scene) -> None:
    scene.manager.ready("idle")
    scene.fill()
    scene.turn("relaying")
    assert scene.said() == ["READY=1", "STATUS=idle"]
    scene.turn("relaying")
    assert scene.said() == ["STATUS=relaying"]
    scene.turn("relaying")
    assert scene.said() == []


def test_that_it_stops_takes_the_place_of_what_was_owed(scene: Scene) -> None:
    scene.fill()
    scene.manager.ready("relaying")
    scene.manager.stopping(3.0)
    scene.said()
    scene.turn("draining")
    assert scene.said() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=3000000", "STATUS=draining"]


def test_an_abstract_address_is_understood_and_a_manager_that_is_gone_is_no_fault() -> None:
    name = "outboxd-tests-of-an-abstract-address"
    manager = ServiceManager(environ={"NOTIFY_SOCKET": f"@{name}"}, monotonic=lambda: 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(10)
        manager.ready("relaying")
        assert listening.recv(4_096) == b"READY=1\nSTATUS=relaying"
    manager.stopping(1.0)
