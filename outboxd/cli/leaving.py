"""How the process of a daemon ends, whose Kafka clients may be at work to the last moment.

A thread that asks a broker keeps its client alive until it is answered, and no end waits for that. Where such a client
is in a TLS handshake while the exit handlers of the C library take OpenSSL down, the process ends by SIGSEGV instead of
its exit code: 4 of 40 ends (measured). By then everything is closed and said, so those handlers are left out.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Final

from outboxd.cli.streams import OutputClosedError

_ended_with: Final[list[int]] = []


def leave_out_exit_handlers() -> None:
    """Let this process end without those of the C library, if it is the command's own, see `note`."""
    # Those of Python that are registered later run before this one; its threads are waited for before all of them.
    atexit.register(_leave)


def note(exit_code: int) -> None:
    """The command line that this process was started for has ended so."""
    with suppress(ValueError):  # Of another thread than the main one.
        # All is done: a Ctrl+C that comes now would have the interpreter tell where its own end was.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _ended_with.append(exit_code)


def _leave() -> None:
    if not _ended_with:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, OutputClosedError):
            stream.flush()
    os._exit(_ended_with[-1])
