"""Alerts: the configured program is run with the event as JSON on its standard input, at a limited rate, never in the
way.

One event of a kind and topic goes out at once; more of them within a minute are held back, and the last of them goes
out at the end of that minute with their number, so that nobody is left with the first news as the last.
"""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from outboxd.errors import ConfigError
from outboxd.observability.events import kind_of
from outboxd.policy.blame.cause import plain
from outboxd.policy.exchange.messages import TellEvent

QUIET_SECONDS: Final = 60.0
COMMAND_SECONDS_MAX: Final = 30.0
QUEUE_MAX: Final = 100
KINDS_MAX: Final = 1_000
_SECRET_PREFIXES: Final = ("OUTBOXD_", "PGPASS", "OTEL_")
"""The exporter of traces may have its authorization in a variable."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An event to be told. `suppressed` counts those of its kind that were held back before it."""

    name: str
    fields: Mapping[str, object]
    at: str
    suppressed: int = 0

    @property
    def kind(self) -> tuple[str, str]:
        """What the rate is limited by."""
        return self.name, str(self.fields.get("topic", ""))


@dataclass(slots=True)
class _Quiet:
    until: float
    held_back: Alert | None = None
    count: int = 0


class AlertRate:
    """Which alerts go now. Pure: `now` is an argument."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS, kinds_max: int = KINDS_MAX) -> None:
        """One alert of a kind goes out in `quiet_seconds`; at most `kinds_max` kinds are remembered."""
        self._quiet_seconds = quiet_seconds
        self._kinds_max = kinds_max
        self._quiet: OrderedDict[tuple[str, str], _Quiet] = OrderedDict()

    def offer(self, alert: Alert, now: float) -> Alert | None:
        """Return the alert if it is to go now, else None: it is held back, and comes by `due`."""
        quiet = self._quiet.get(alert.kind)
        if quiet is None or (now >= quiet.until and quiet.held_back is None):
            self._begin_quiet(alert, now)
            return alert
        quiet.held_back = alert
        quiet.count += 1
        return None

    def due(self, now: float) -> list[Alert]:
        """Return the last alert of each kind whose quiet time is over, with how many were held back before it."""
        over = [quiet for quiet in self._quiet.values() if quiet.until <= now]
        going = [replace(quiet.held_back, suppressed=quiet.count - 1) for quiet in over if quiet.held_back is not None]
        for kind in [kind for kind, quiet in self._quiet.items() if quiet.until <= now]:
            del self._quiet[kind]
        for alert in going:
            self._begin_quiet(alert, now)
        return going

    def next_at(self) -> float | None:
        """When something that is held back is due; None while nothing is."""
        return min((quiet.until for quiet in self._quiet.values() if quiet.held_back is not None), default=None)

    def _begin_quiet(self, alert: Alert, now: float) -> None:
        self._quiet[alert.kind] = _Quiet(now + self._quiet_seconds)
        while len(self._quiet) > self._kinds_max:
            self._quiet.popitem(last=False)


class Alerts:
    """Runs the command for what it is offered, on a thread of its own."""

    def __init__(
        self,
        command: str,
        event: TellEvent,
        *,
        about: Mapping[str, str] | None = None,
        rate: AlertRate | None = None,
        command_seconds_max: float = COMMAND_SECONDS_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread.

        Args:
            command: `alerts.command`, split as a shell would and run without one; empty runs nothing.
            event: the log's, for failures of the command.
            about: what every alert has besides, such as the outbox and the daemon.
            rate: decides which alerts go.
            command_seconds_max: a command that takes longer is killed.
            monotonic: the clock.

        Raises:
            ConfigError: the command's quotes do not match.
        """
        self._argv = _split(command)
        self._event = event
        self._about = dict(about or {})
        self._rate = rate or AlertRate()
        self._command_seconds_max = command_seconds_max
        self._monotonic = monotonic
        self._queue: queue.Queue[Alert | None] = queue.Queue(QUEUE_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def set_command(self, command: str) -> None:
        """Run this from now on; ConfigError where its quotes do not match, and the former one stays."""
        self._argv = _split(command)

    def offer(self, name: str, fields: Mapping[str, object]) -> None:
        """Take an event; never waits."""
        if not self._argv:
            return
        try:
            self._queue.put_nowait(Alert(name, dict(fields), datetime.now(UTC).isoformat()))
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Tell what is queued or held back, but for no longer than this."""
        try:
            self._queue.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            next_at = self._rate.next_at()
            wait_seconds = None if next_at is None else max(0.0, next_at - self._monotonic())
            try:
                alert = self._queue.get(timeout=wait_seconds)
            except queue.Empty:
                self._send_due()
                continue
            if alert is None:
                self._send_rest()
                return
            going = self._rate.offer(alert, self._monotonic())
            if going is not None:
                self._send(going)
            self._send_due()

    def _send_rest(self) -> None:
        """The daemon ends: what is held back goes now, lest the first news be the last."""
        for alert in sorted(self._rate.due(float("inf")), key=lambda alert: alert.at):
            self._send(alert)

    def _send_due(self) -> None:
        for alert in self._rate.due(self._monotonic()):
            self._send(alert)

    def _send(self, alert: Alert) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._event("alerts_dropped", suppressed=dropped)
        argv = self._argv
        if not argv:
            return
        kind = kind_of(alert.name)
        document: dict[str, Any] = {
            "event": alert.name,
            "level": kind.level,
            "message": kind.message(alert.fields),
            "at": alert.at,
            "suppressed": alert.suppressed,
            **self._about,
            "fields": dict(alert.fields),
        }
        failure = run_command(argv, orjson.dumps(document, default=str) + b"\n", self._command_seconds_max)
        if failure is not None:
            self._event("alert_command_failed", command=argv[0], exit_code=failure.exit_code, cause=failure.cause)


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"alerts.command cannot be split into words: {error}; close every quote") from error


@dataclass(frozen=True, slots=True)
class CommandFailure:
    """How a command failed; `exit_code` is None when it could not be started or was killed for its time."""

    exit_code: int | None
    cause: str


def run_command(argv: list[str], standard_input: bytes, seconds_max: float) -> CommandFailure | None:
    """Run a program without a shell, in a session of its own; return how it failed, or None.

    It gets the daemon's environment without what may hold secrets. What it leaves running is killed with it when its
    time is over.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET_PREFIXES)}
    environment.pop("CREDENTIALS_DIRECTORY", None)
    environment.pop("NOTIFY_SOCKET", None)
    try:
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(  # noqa: S603 - the operator's own command
                argv,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
            try:
                child.communicate(standard_input, timeout=seconds_max)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                return CommandFailure(None, f"it took longer than {seconds_max:g} s and was killed")
            if child.returncode == 0:
                return None
            said.seek(0)
            return CommandFailure(child.returncode, plain(said.read(2_000).decode(errors="replace"), 500))
    except OSError as error:
        # It is not there or may not be run; or there is no room for what it says.
        return CommandFailure(None, str(error))
