"""The daemons of the campaign: two children that are started again whenever they end, as a service manager would.

Each writes its log into a pipe that the campaign reads, so that a reader can also be too slow on purpose.
"""

from __future__ import annotations

import collections
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.children import end, free_ports, spawn
from tests.support.daemon import ROOT, Section, write_config

EVENTS_KEPT = 20_000
PIPE_BYTES = 4_096
"""A small pipe for the log: it is soon full when nobody reads."""
_TURN_SECONDS = 0.03
_SAMPLE_SECONDS = 2.0
EXPECTED_CODES = frozenset({0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 69, 75})
"""0: an orderly end. Signals: ours. 69: no server at its start. 75: robbed of the lease again and again by freezes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a daemon's log."""

    at: float
    daemon: str
    name: str
    fields: Mapping[str, Any]


@dataclass
class Usage:
    """The most that any daemon ever took."""

    rss_mib: float = 0.0
    descriptors: int = 0
    threads: int = 0
    oldest_seconds: float = 0.0

    def take(self, pid: int, age_seconds: float) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            return
        values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmRSS" not in values:
            return
        self.rss_mib = max(self.rss_mib, int(values["VmRSS"].split()[0]) / 1024)
        self.threads = max(self.threads, int(values["Threads"]))
        self.descriptors = max(self.descriptors, descriptors)
        self.oldest_seconds = max(self.oldest_seconds, age_seconds)


class Daemon:
    """One `outboxd run`, perhaps started many times. `held` keeps it down."""

    def __init__(
        self, directory: Path, log: Path, name: str, sections: Mapping[str, Section], note: Callable[[Event], None]
    ) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self._log, self._note = log / f"{name}.log", note
        self._out = directory / f"{name}.out"
        self._pipe = directory / f"{name}.pipe"
        http = {"http": {"listen": f"127.0.0.1:{self.port}"}, "log": {"level": "info", "format": "json"}}
        self.config = write_config(directory / f"{name}.toml", {**http, **sections})
        os.mkfifo(self._pipe)
        # Open for both ways: it has a reader before the daemon starts, and no end when the daemon ends.
        self._reader = os.fdopen(os.open(self._pipe, os.O_RDWR), "rb", buffering=1 << 16)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.unread = threading.Event()
        """Set: nobody reads the log."""
        self.held = False
        self.child: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.starts = 0
        self._closing = False
        self._thread = threading.Thread(target=self._read, name=f"log-{name}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0

    @property
    def is_running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def start(self) -> None:
        """Start it; on the supervisor's thread only, with which it dies."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "PG"))}
        self.child = spawn(
            [sys.executable, "-m", "outboxd", "run", "-c", str(self.config)],
            log=self._out,
            errors=self._pipe,
            env={**environ, "PYTHONPATH": str(ROOT)},
        )
        self.started_at = time.time()
        self.starts += 1

    def signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send_signal(number)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for its end, and return its exit code."""
        assert self.child is not None
        return self.child.wait(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self.child is not None:
            end(self.child, grace_seconds=0)

    def close(self) -> None:
        """Kill it, and let go of its log."""
        self.kill()
        self._closing = True
        self.unread.clear()
        with self._pipe.open("wb", buffering=0) as pipe:
            pipe.write(b"\n")  # Wakes the reader.
        self._thread.join(5)
        self._reader.close()

    # --- What it says

    def get(self, path: str, timeout_seconds: float = 1.0) -> tuple[int, str]:
        """Ask its page; the code is 0 where there is no answer in time."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_seconds) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, ""
        except OSError:
            return 0, ""

    @property
    def unread_bytes(self) -> int:
        """How much of its log waits in the pipe."""
        return int.from_bytes(fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4)), sys.byteorder)

    @property
    def is_ready(self) -> bool:
        return self.is_running and self.get("/readyz")[0] == 200

    def metric(self, name: str) -> float | None:
        """The sum of a metric over its labels; None where there is no answer."""
        code, text = self.get("/metrics", 2.0)
        if code != 200:
            return None
        lines = (line for line in text.splitlines() if line.startswith((f"outboxd_{name} ", f"outboxd_{name}{{")))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def _read(self) -> None:
        with self._log.open("ab") as kept:
            while not self._closing:
                line = self._reader.readline()
                while self.unread.is_set():
                    time.sleep(0.02)
                if b'"row_delivered"' in line or b'"row_failed"' in line:
                    continue
                kept.write(line)
                kept.flush()
                if not line.startswith(b"{"):
                    continue
                try:
                    fields = json.loads(line)
                except ValueError:
                    continue  # Cut by a kill in the middle of a line.
                self._note(Event(time.time(), self.name, str(fields.get("event")), fields))


@dataclass
class Pair:
    """The daemons, and who starts them again."""

    directory: Path
    log: Path
    sections: Mapping[str, Section]
    daemons: list[Daemon] = field(default_factory=list)
    events: collections.deque[Event] = field(default_factory=lambda: collections.deque(maxlen=EVENTS_KEPT))
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[int] = field(default_factory=collections.Counter)
    unexpected: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")
        for _ in range(2):
            self.add()

    def add(self) -> Daemon:
        """Make one more; the supervisor starts it."""
        daemon = Daemon(self.directory, self.log, f"daemon-{len(self.daemons)}", self.sections, self._note)
        self.daemons.append(daemon)
        return daemon

    def start(self) -> None:
        """Begin to keep them running."""
        self._supervisor.start()

    def close(self) -> None:
        """End all."""
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join(10)
        for daemon in self.daemons:
            daemon.close()

    def stop_in_order(self, timeout_seconds: float = 40.0) -> list[int]:
        """SIGTERM to all; return their exit codes."""
        for daemon in self.daemons:
            daemon.held = True
            if daemon.is_running:
                daemon.signal(signal.SIGTERM)
        return [daemon.wait(timeout_seconds) for daemon in self.daemons if daemon.child is not None]

    # --- Events

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self.counts[event.name] += 1

    def since(self, at: float, *names: str, daemon: Daemon | None = None) -> list[Event]:
        """The events of these names since then, perhaps of one daemon only."""
        found: list[Event] = []
        for event in reversed(self.events.copy()):
            if event.at < at:
                break
            if event.name in names and (daemon is None or event.daemon == daemon.name):
                found.append(event)
        return found[::-1]

    # --- The supervisor's thread

    def _supervise(self) -> None:
        seen: dict[str, int] = {}
        sampled_at = 0.0
        while not self._closing.wait(_TURN_SECONDS):
            for daemon in list(self.daemons):
                if daemon.child is not None and not daemon.is_running and seen.get(daemon.name) != daemon.starts:
                    seen[daemon.name] = daemon.starts
                    self._ended(daemon, daemon.child.returncode)
                if not daemon.is_running and not daemon.held:
                    daemon.start()
            if time.monotonic() - sampled_at > _SAMPLE_SECONDS:
                sampled_at = time.monotonic()
                for daemon in list(self.daemons):
                    if daemon.is_running:
                        self.usage.take(daemon.pid, time.time() - daemon.started_at)

    def _ended(self, daemon: Daemon, code: int) -> None:
        self.codes[code] += 1
        if code not in EXPECTED_CODES:
            self.unexpected.append(f"{daemon.name} ended with {code}")
