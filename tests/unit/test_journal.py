"""Entries of the journal go by its own protocol, and a journald that stands still holds up nobody but their writer."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.observability import journal
from outboxd.observability.journal import send
from outboxd.observability.logs import open_log
from tests.support.children import wait_for

DEADLINE_SECONDS = 10.0
EVENTS = 3_000
"""More than the queue of any socket holds."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="journald is Linux's")


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket in journald's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE_SECONDS)
        listening.bind(str(tmp_path / "journal"))
        yield listening


def test_an_entry_is_a_datagram_of_lines_and_what_has_several_is_told_with_its_length(
    journald: socket.socket, tmp_path: Path
) -> None:
    send({"MESSAGE": "ä=b", "PRIORITY": 4, "OUTBOXD_TRACEBACK": "one\ntwo", "X": ""}, tmp_path / "journal")
    assert journald.recv(4_096) == (
        "MESSAGE=ä=b\nPRIORITY=4\n".encode() + b"OUTBOXD_TRACEBACK\n\x07\0\0\0\0\0\0\0one\ntwo\nX=\n"
    )


def test_an_entry_too_long_for_a_datagram_comes_as_a_file_that_nobody_can_change(
    journald: socket.socket, tmp_path: Path
) -> None:
    text = "x" * (32 << 20)
    send({"MESSAGE": text}, tmp_path / "journal")
    content, (descriptor,), _, _ = socket.recv_fds(journald, 1, 1)
    with os.fdopen(descriptor, "r+b") as file:
        assert content == b""
        file.seek(0)
        assert file.read() == b"MESSAGE=" + text.encode() + b"\n"
        with pytest.raises(PermissionError):
            os.write(descriptor, b"more")


def test_where_there_is_no_journald_each_line_counts_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "nothing")
    log = open_log("info", "journal")
    log.event("topic_paused", topic="a")
    log.close(DEADLINE_SECONDS)
    assert log.dropped == 1


def test_a_journald_that_stands_still_holds_up_no_other_thread_and_gets_all_lines_once_it_goes_on(
    journald: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "journal")
    log = open_log("info", "journal")
    for number in range(EVENTS):
        log.event("topic_paused", topic=f"topic-{number}")
    # Its writer waits in the socket by now, or will: this thread goes on all the same.
    turns = iter(range(100))
    wait_for(lambda: next(turns) == 99, timeout_seconds=DEADLINE_SECONDS, what="turns", poll_seconds=0.001)

    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(journald.recv(4_096) for _ in range(EVENTS)))
    reader.start()
    reader.join(DEADLINE_SECONDS)
    log.close(DEADLINE_SECONDS)
    assert [b"OUTBOXD_TOPIC=topic-%d\n" % number in entry for number, entry in enumerate(received)] == [True] * EVENTS
    assert log.dropped == 0
