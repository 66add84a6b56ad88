"""Daemons as forks of one process a test run, which has their modules loaded: a start costs no second of the processor.

Loading them is most of what a daemon's start takes, and the tests start hundreds. What is forked runs the same module
as `python -m` does, with arguments, variables, streams, a session and an end of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.nursery_process import DESCRIPTORS

ROOT = Path(__file__).parents[2]
_FORK_SECONDS_MAX = 60.0


class Nursling:
    """A forked process, with what the tests ask of a `subprocess.Popen`."""

    def __init__(self, told: socket.socket) -> None:
        """`told` brings its process id, and later its exit code."""
        self._told = told
        self._code: int | None = None
        told.settimeout(_FORK_SECONDS_MAX)
        self.pid = int.from_bytes(told.recv(4), "little")
        if not self.pid:
            raise RuntimeError(f"the process that daemons are forked from ended:\n{_nursery().log_text()}")

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._heard(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired where that takes longer."""
        if (code := self._heard(timeout)) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _heard(self, seconds: float | None) -> int | None:
        if self._code is not None:
            return self._code
        self._told.settimeout(seconds)
        try:
            told = self._told.recv(4)
        except (BlockingIOError, TimeoutError):
            return None
        # Without a word the nursery has ended, and its children die with it.
        self._code = int.from_bytes(told, "little", signed=True) if told else -signal.SIGKILL
        self._told.close()
        return self._code


class Nursery:
    """The process that is forked from."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.close)

    def fork(
        self, module: str, arguments: Sequence[str], *, out: Path, errors: Path, env: Mapping[str, str]
    ) -> Nursling:
        """Run `module` with these arguments; what it says is appended to the two files."""
        order = {"module": module, "arguments": [*arguments], "environ": dict(env), "directory": str(Path.cwd())}
        told, theirs = socket.socketpair()
        with theirs, out.open("ab") as output, errors.open("ab") as errors_output:
            descriptors = [theirs.fileno(), output.fileno(), errors_output.fileno()]
            assert len(descriptors) == DESCRIPTORS
            socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)
        return Nursling(told)

    def log_text(self) -> str:
        """What the process said; nothing as long as all is well."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End it."""
        self._orders.close()
        self._process.wait()
        self._log.close()


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


def fork(module: str, arguments: Sequence[str], *, out: Path, errors: Path, env: Mapping[str, str]) -> Nursling:
    """Run `module` in a fork of this run's nursery, which is made now where there is none."""
    return _nursery().fork(module, arguments, out=out, errors=errors, env=env)
