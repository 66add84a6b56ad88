"""`outboxd top` on a terminal of its own, beside a real daemon, and without either."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.children import free_ports
from tests.support.daemon import ROOT
from tests.support.rig import Rig


def clean_environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "PG"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A child whose standard input and output are a pseudo-terminal of this size."""

    def __init__(self, *arguments: str, columns: int = 100, lines: int = 40, term: str = "xterm-256color") -> None:
        self.text = ""
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**clean_environ(), "TERM": term}
        env |= {"COLUMNS": "300", "LINES": "5"}  # What a shell exports may be old.
        self.child = subprocess.Popen(
            [sys.executable, "-m", "outboxd", *arguments],
            stdin=there, stdout=there, stderr=there, env=env, start_new_session=True,
        )  # fmt: skip
        os.close(there)

    def wait_for(self, condition: Callable[[str], bool], what: str, timeout_seconds: float = 30.0) -> None:
        """Read until the text, escapes taken out, has it."""
        deadline = time.monotonic() + timeout_seconds
        while not condition(_ESCAPES.sub("", self.text)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {timeout_seconds:g} s; it showed:\n{self.text[-3000:]}")
            self._read(0.2)

    def _read(self, seconds: float) -> None:
        readable, _, _ = select.select([self._here], [], [], seconds)
        if readable:
            try:
                self.text += os.read(self._here, 65_536).decode(errors="replace")
            except OSError:  # Linux says EIO when the other side is closed.
                return

    def press(self, keys: str) -> None:
        os.write(self._here, keys.encode())

    def end(self, timeout_seconds: float = 10.0) -> int:
        """Wait for its end while reading, so that it never blocks on a full terminal; its exit code."""
        deadline = time.monotonic() + timeout_seconds
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"it did not end; it showed:\n{self.text[-3000:]}"
            self._read(0.1)
        self._read(0.1)
        return self.child.returncode

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self._here)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[Open]:
    opened: list[Terminal] = []

    def open_one(*arguments: str, **options: object) -> Terminal:
        opened.append(Terminal(*arguments, **options))  # type: ignore[arg-type]  # as its constructor takes them
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def config(rig: Rig) -> Path:
    """A running daemon's configuration; the daemon relays, with its page on, and has one dead letter and a pause."""
    (port,) = free_ports(1)
    daemon = rig.daemon(http={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    daemon.wait_for_event("owner")
    return daemon.config


def test_top_shows_a_working_daemon_live_until_q(rig: Rig, config: Path, terminal: Open) -> None:
    topic = rig.topic(prefix="orders")
    screen = terminal("top", "-c", str(config))
    screen.wait_for(lambda text: "the page of" in text, "frame")
    rig.insert_many([topic], 3_000, keys=50)
    rig.insert(topic, headers='{"bad": 5}')
    rig.sql.execute("SELECT outboxd.pause('quiet.*', 'too loud')")
    screen.wait_for(lambda text: bool(re.search(rf"{topic[:20]}\S* +\d\S* +\d+ +3,000", text)), "the topic's count")
    screen.wait_for(lambda text: "commit to ack, in the last" in text, "the latency")
    screen.wait_for(lambda text: "too loud" in text, "the pause")
    screen.wait_for(lambda text: "at most" in text and "█" in text, "the sparkline")
    screen.wait_for(lambda text: "1 dead letter" in text, "the dead letter")
    screen.press("q")
    assert screen.end() == 0
    assert "\x1b[?1049l" in screen.text, "the terminal's own screen is back"
    assert "\x1b[?25h" in screen.text, "the cursor is back"


def test_ctrl_c_ends_it_without_a_traceback(config: Path, terminal: Open) -> None:
    screen = terminal("top", "-c", str(config))
    screen.wait_for(lambda text: "outbox" in text, "frame")
    os.kill(screen.child.pid, signal.SIGINT)
    assert screen.end() == 0
    assert "Traceback" not in screen.text


@pytest.mark.parametrize(("columns", "lines"), [(20, 8), (40, 12)])
def test_a_small_terminal_is_enough(config: Path, terminal: Open, columns: int, lines: int) -> None:
    screen = terminal("top", "-c", str(config), columns=columns, lines=lines)
    screen.wait_for(lambda text: text.count("outbox") >= 2, "two frames")
    screen.press("q")
    assert screen.end() == 0
    assert "Traceback" not in screen.text


def test_a_dumb_terminal_gets_one_frame_after_the_other(config: Path, terminal: Open) -> None:
    screen = terminal("top", "-c", str(config), term="dumb")
    screen.wait_for(lambda text: text.count("outbox ") >= 2, "two frames")
    screen.press("q")
    assert screen.end() == 0
    assert "\x1b" not in screen.text


def test_a_daemon_that_dies_is_replaced_by_what_the_database_tells(rig: Rig, config: Path, terminal: Open) -> None:
    screen = terminal("top", "-c", str(config))
    screen.wait_for(lambda text: "the page of" in text, "frame")
    rig.daemons[0].kill()
    screen.wait_for(lambda text: "no daemon's page answers" in text, "the database's frame")
    screen.press("q")
    assert screen.end() == 0


def test_without_a_terminal_one_plain_frame_is_printed(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "outboxd", "top", "-c", str(config)],
        env=clean_environ(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "relaying" in done.stdout
    assert "the page of" in done.stdout
