"""`outboxd run` as a child of the tests: started, watched by its log, stopped, killed, frozen.

daemon = DaemonProcess(tmp_path, {"database": {"url": url}, "kafka": {"bootstrap.servers": bootstrap}})
daemon.start()
daemon.wait_for_event("owner")
daemon.kill()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.children import Child, end, spawn, wait_for
from tests.support.nursery import fork

Section = Mapping[str, object]
Event = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
STOP_SECONDS_MAX = 40.0


@dataclass(frozen=True)
class Ended:
    """How a daemon ended: its exit code and what it said."""

    code: int
    out: str
    err: str


def write_config(path: Path, sections: Mapping[str, Section], routes: Sequence[Section] = ()) -> Path:
    """Write a configuration file; texts, numbers and truth values look the same in JSON and in TOML."""
    lines: list[str] = []
    for title, values in [
        *((f"[{name}]", section) for name, section in sections.items()),
        *(("[[route]]", route) for route in routes),
    ]:
        lines.append(title)
        for name, value in values.items():
            # A dot in [kafka] belongs to the name; in a route it leads into `retry`.
            shown = json.dumps(name) if title == "[kafka]" else name
            lines.append(f"{shown} = {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n")
    return path


class DaemonProcess:
    """One daemon, perhaps started many times with the same configuration. Nothing of it outlives the test run."""

    module = "outboxd"
    """What is started: a test with ports of its own brings a launcher of its own."""
    is_forked = True
    """Whether a start is a fork of what has loaded the modules, or that of a shell, for tests of the process itself."""

    def __init__(
        self, directory: Path, sections: Mapping[str, Section], routes: Sequence[Section] = (), *, name: str = "daemon"
    ) -> None:
        """`sections` and `routes` are the configuration; the page is off and the log is JSON unless they say
        otherwise.
        """
        self.config = write_config(
            directory / f"{name}.toml", {"http": {"listen": ""}, "log": {"format": "json"}, **sections}, routes
        )
        self._out = directory / f"{name}.out"
        self._log = directory / f"{name}.log"
        self._child: Child | None = None
        self._seen_bytes = 0

    def start(self, *arguments: str) -> None:
        """Start `outboxd run` and return at once; what earlier runs logged is not looked at any more."""
        self._seen_bytes = self._log.stat().st_size if self._log.exists() else 0
        self._out.write_text("")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOXD_", "PG"))}
        environ["PYTHONPATH"] = str(ROOT)
        words = ["run", "-c", str(self.config), *arguments]
        if self.is_forked:
            self._child = fork(self.module, words, out=self._out, errors=self._log, env=environ)
        else:
            command = [sys.executable, "-m", self.module, *words]
            self._child = spawn(command, log=self._out, errors=self._log, env=environ)

    @property
    def pid(self) -> int:
        assert self._child is not None, "not started"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    # --- What it said

    @property
    def log_text(self) -> str:
        """What the present run wrote to standard error."""
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[self._seen_bytes :].decode(errors="replace")

    def events(self, name: str, **fields: object) -> list[Event]:
        """The present run's events of this name, with these fields."""
        found: list[Event] = []
        for line in self.log_text.splitlines():
            if f'"{name}"' not in line or not line.startswith("{") or not line.endswith("}"):
                continue
            event = json.loads(line)
            if event["event"] == name and all(event.get(field) == value for field, value in fields.items()):
                found.append(event)
        return found

    def wait_for_event(self, name: str, *, timeout_seconds: float = 30.0, count: int = 1, **fields: object) -> Event:
        """Wait until that event was logged `count` times, and return the last; a daemon that ended fails at once."""

        def there() -> bool:
            found = len(self.events(name, **fields)) >= count
            assert found or self.is_running, f"ended while waiting for {name}:\n{self.log_text[-3000:]}"
            return found

        wait_for(there, timeout_seconds=timeout_seconds, what=f"event {name} {fields}")
        return self.events(name, **fields)[-1]

    # --- How it ends

    def wait(self, timeout_seconds: float = STOP_SECONDS_MAX) -> Ended:
        """Wait for its own end."""
        assert self._child is not None, "not started"
        try:
            code = self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired as late:
            raise TimeoutError(f"no end within {timeout_seconds:g} s; it said:\n{self.log_text[-3000:]}") from late
        return Ended(code, self._out.read_text(errors="replace"), self.log_text)

    def run(self, *arguments: str, timeout_seconds: float = STOP_SECONDS_MAX) -> Ended:
        """Start it and wait for its own end, as `run --until-empty` has one."""
        self.start(*arguments)
        return self.wait(timeout_seconds)

    def stop(self, timeout_seconds: float = STOP_SECONDS_MAX) -> Ended:
        """SIGTERM, and wait for its end."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None, "not started"
        self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. A daemon that ended before stays as it is."""
        if self._child is not None:
            end(self._child, grace_seconds=0)

    def freeze(self) -> None:
        """SIGSTOP: all its threads stand still, its connections stay open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
