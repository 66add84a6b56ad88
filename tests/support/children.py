"""Child servers that never outlive the test run, and free loopback ports for them to listen on."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

# Runs in the child and becomes the command; `preexec_fn` is unsafe beside the threads of Kafka clients. 1 is
# PR_SET_PDEATHSIG, 9 is SIGKILL; a parent that died before the request was made shows by the changed parent id.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
# Below the kernel's range for outgoing connections: no client can take a port between our look and the server's bind.
_PORT_RANGE = range(20_000, 32_000)


class Child(Protocol):
    """What is asked of a process that was started, `subprocess.Popen` or another."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback TCP ports that nothing listens on at this moment."""
    chosen: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as open_sockets:
        for port in random.sample(_PORT_RANGE, len(_PORT_RANGE)):
            probe = open_sockets.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                chosen[port] = probe
            if len(chosen) == count:
                return list(chosen)
    raise RuntimeError(f"no {count} free loopback ports in {_PORT_RANGE}")


def spawn(
    command: Sequence[str], *, log: Path, errors: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `log`, what it says on standard error too unless `errors` is another
    file; the kernel kills it when the calling thread ends.

    Call it from a thread that lives as long as the child shall: the death signal follows the thread, not the process.
    The child has a session of its own, so that Ctrl+C reaches the tests first and they stop it in order.
    """
    with log.open("ab") as output, (errors or log).open("ab") as errors_output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors_output,
            env=None if env is None else dict(env),
            start_new_session=True,
        )


def end(child: Child, *, grace_seconds: float) -> int:
    """Send SIGTERM, wait `grace_seconds`, then SIGKILL, which ends a frozen child too; return the exit status."""
    if child.poll() is None and grace_seconds > 0:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(grace_seconds)
    if child.poll() is None:
        child.kill()
    return child.wait()


def wait_for(condition: Callable[[], bool], *, timeout_seconds: float, what: str, poll_seconds: float = 0.05) -> None:
    """Poll `condition` until it is true; raise TimeoutError naming `what` when it is not within `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_seconds:g} s: {what}")
        time.sleep(poll_seconds)
