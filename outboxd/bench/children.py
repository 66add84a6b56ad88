"""The processes of a benchmark: the daemon and the bare loop, each by itself, so that neither disturbs the other.

They are this program started anew. A pipe leads to each; when it ends, because the parent did, the child ends too.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

from outboxd.bench.bare import BareProduce, bare_produce, quiet_clients
from outboxd.config import Settings
from outboxd.daemon.daemon import Daemon
from outboxd.errors import BugError, OutboxdError, UnavailableError
from outboxd.observability.logs import open_log

ANSWER_SECONDS_MAX: Final = 30.0
START_SECONDS_MAX: Final = 60.0
END_SECONDS_MAX: Final = 15.0
LOG_CHARS_SHOWN: Final = 1500


@dataclass(frozen=True, slots=True)
class Usage:
    """What a daemon has used and done since its start: CPU and phases in seconds, memory at its peak in bytes."""

    acknowledged_rows: int
    cpu_seconds: float
    fetch_seconds: float
    settle_seconds: float
    memory_peak_bytes: int


class Child:
    """One process and the pipe to it. `end` it."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        """Start it: `target(pipe, *arguments)`, a function of a module."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), name="outboxd-bench")
        self._process.start()
        theirs.close()

    def receive(self, seconds_max: float) -> Any:
        """What it says next.

        Raises:
            OutboxdError: what it failed of, or that it said nothing in time.
        """
        said: object = None
        with suppress(EOFError, OSError):
            if not self._pipe.poll(seconds_max):
                raise UnavailableError(f"a process of the benchmark said nothing for {seconds_max:g} s")
            said = self._pipe.recv()
        if said is None:
            raise BugError(f"a process of the benchmark ended with {self._process.exitcode}")
        if isinstance(said, OutboxdError):
            raise said
        return said

    def ask(self) -> Any:
        """Ask it how it stands."""
        with suppress(OSError):
            self._pipe.send(None)
        return self.receive(ANSWER_SECONDS_MAX)

    def end(self) -> None:
        """End it in order; where it does not, by force."""
        self._pipe.close()
        self._process.join(END_SECONDS_MAX)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def start_relay(settings: Settings) -> Child:
    """Start a daemon; `ask` returns its `Usage`."""
    return Child(_relay, settings)


def bare_in_child(properties: Mapping[str, str], topic: str, rows: int, seconds_max: float) -> BareProduce:
    """Run the bare loop in a process of its own."""
    child = Child(_bare, dict(properties), topic, rows, seconds_max)
    try:
        result: BareProduce = child.receive(START_SECONDS_MAX + 2 * seconds_max)
    finally:
        child.end()
    return result


# In the children.


def _bare(pipe: Connection[Any, Any], properties: Mapping[str, str], topic: str, rows: int, seconds: float) -> None:
    # The parent is told to stop by the same key, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_clients()
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()
    try:
        pipe.send(bare_produce(properties, topic, rows, seconds))
    except OutboxdError as error:
        pipe.send(error)


def _die_with_parent(pipe: Connection[Any, Any]) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(0)


def _relay(pipe: Connection[Any, Any], settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tempfile.TemporaryFile("w+") as log_file:
        log = open_log(settings.log.level, settings.log.format, stream=log_file)
        try:
            daemon = Daemon(settings, log=log)
            log.take_libraries()
            threading.Thread(target=_answer, args=(pipe, daemon), daemon=True).start()
            daemon.run()
        except OutboxdError as error:
            _say(pipe, error)
        except Exception as error:  # noqa: BLE001 - told in the parent, with the end of the log
            log.close()
            log_file.seek(0)
            tail = log_file.read()[-LOG_CHARS_SHOWN:].strip()
            _say(pipe, BugError(f"the daemon of the benchmark failed: {type(error).__name__}: {error}; log: {tail}"))


def _say(pipe: Connection[Any, Any], what: object) -> None:
    with suppress(OSError):
        pipe.send(what)


def _answer(pipe: Connection[Any, Any], daemon: Daemon) -> None:
    """Answer each question by what the daemon has used; the pipe's end is the daemon's."""
    try:
        while True:
            pipe.recv()
            pipe.send(_usage(daemon))
    except (EOFError, OSError):
        daemon.stop()


def _usage(daemon: Daemon) -> Usage:
    def seconds(phase: str) -> float:
        value = daemon.metrics.registry.get_sample_value("outboxd_phase_seconds_sum", {"phase": phase})
        return value or 0.0

    return Usage(
        acknowledged_rows=sum(daemon.board.published_by_topic.values()),
        cpu_seconds=time.process_time(),
        fetch_seconds=seconds("fetch"),
        settle_seconds=seconds("settle"),
        memory_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
