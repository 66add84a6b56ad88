"""The trial: suspects of a crash are sent by a process of its own, whose death with one of them is the proof.

The daemon lives on, so a row that kills is told apart from a daemon that somebody killed. The `child` gets one record
at a time by a pipe, or several together, and answers with the broker's reports. Of several that it died with, nobody
knows which it was: whoever gave them parts them.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pickle import PickleError
from queue import Empty, SimpleQueue
from typing import Any

from outboxd.kafka.trials.child import Answer, MakePublisher, serve
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record

DEATHS_PROVE = 2
"""A process may die once by chance."""
IDLE_SECONDS = 5.0
STARTUP_SECONDS_MAX = 60.0
STARTUP_PAUSE_SECONDS = 5.0
WAIT_SECONDS = 0.5
RENEWAL_SECONDS = 10.0
"""As long as a renewal of the daemon's own producer waits for reports."""


class TrialProcess:
    """Implements the relay's `Trial`. The relay's thread asks; a thread of its own waits for the child."""

    def __init__(
        self,
        make_publisher: MakePublisher,
        properties: Mapping[str, str],
        on_event: Callable[..., None],
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_event(name, **fields)` is told when no child can be started, `on_report` whenever a report is there, both
        on the thread of this; nothing is started before the first record.
        """
        self._on_report = on_report
        self._make_publisher = make_publisher
        self._properties = dict(properties)
        self._properties_since = float("-inf")
        self._child_has: Mapping[str, str] = {}
        self._event = on_event
        self._queue: SimpleQueue[tuple[int, Sequence[Record]] | None] = SimpleQueue()
        self._reports: list[tuple[int, Sequence[Report]]] = []
        self._generation = 0
        self._owed = 0
        self._thread: threading.Thread | None = None
        self._child: SpawnProcess | None = None
        self._child_lock = threading.Lock()
        """Held where the relay's thread may kill a child that the other one starts or lets go of."""
        self._pipe: Connection[Any, Any] | None = None
        self._closing = threading.Event()

    # For the relay.

    def send(self, records: Sequence[Record]) -> None:
        """Have these records sent together; their reports come by `take_reports`, all at once. Where a process dies of
        several, all of them are reported as `CRASHED_DAEMON` at once, though one of them may be to blame, or none; a
        record by itself only when it was the end of two processes.
        """
        self._owed += len(records)
        self._queue.put((self._generation, records))
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="trial", daemon=True)
            thread.start()
            self._thread = thread

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call."""
        taken = self._reports[:]
        del self._reports[: len(taken)]
        reports = [each for generation, together in taken if generation == self._generation for each in together]
        self._owed -= len(reports)
        return reports

    def is_idle(self) -> bool:
        """Say whether no report is owed."""
        return self._owed == 0

    def abandon(self) -> None:
        """End the child; what it was given is never reported any more, and its end proves nothing."""
        self._generation += 1
        self._owed = 0
        with self._child_lock:
            if self._child is not None:
                self._child.kill()

    def take_properties(self, properties: Mapping[str, str] | None = None, *, anew: bool = False) -> None:
        """Have the next record sent by a client with these, or those before, a new one where they are others or `anew`,
        since files that they name may have changed. A record that the present child sends has `RENEWAL_SECONDS` left
        and is sent again then: what changed may be why it has no report. May be called on any thread.
        """
        if anew or properties != self._properties:
            self._properties_since = time.monotonic()
            self._properties = dict(self._properties if properties is None else properties)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End the child and the thread, or leave that behind after `timeout_seconds`."""
        self._closing.set()
        self.abandon()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    # The thread.

    def _work(self) -> None:
        timeout_seconds: float | None = None
        while True:
            try:
                task = self._queue.get(timeout=timeout_seconds)
            except Empty:
                self._end_child()
                timeout_seconds = None
                continue
            if task is None:
                self._end_child()
                return
            timeout_seconds = IDLE_SECONDS
            generation, records = task
            reports = self._try(generation, records)
            if reports is not None:
                self._reports.append((generation, reports))
                self._on_report()

    def _try(self, generation: int, records: Sequence[Record]) -> Sequence[Report] | None:
        """Return what became of the records; None when nobody wants to know any more."""
        endings: list[str] = []
        while len(endings) < (DEATHS_PROVE if len(records) == 1 else 1):
            pipe = self._ready_child(generation)
            if pipe is None:
                return None
            answers = self._ask(pipe, records)
            if generation != self._generation:
                return None
            if answers is not None:
                return [Report(record, *answer, True) for record, answer in zip(records, answers, strict=True)]
            was_renewed = self._is_outdated()
            ending = self._end_child()
            if not was_renewed:
                endings.append(ending)
        what = "this row" if len(records) == 1 else f"{len(records)} rows"
        text = f"a process that did nothing but send {what} died of it: {', then '.join(endings)}"
        death = DeliveryFault(own_fault("CRASHED_DAEMON"), text)
        return [Report(record, death, record.partition, None, True) for record in records]

    def _ask(self, pipe: Connection[Any, Any], records: Sequence[Record]) -> Sequence[Answer] | None:
        """Return the child's answers, or None when it died, or has outdated properties for too long. There is no other
        time limit: a broker may be down.
        """
        try:
            # Plain records: the client's own kind of record does not travel.
            pipe.send([Record(*record) for record in records])
            while not pipe.poll(WAIT_SECONDS):
                if self._is_outdated() and time.monotonic() - self._properties_since >= RENEWAL_SECONDS:
                    return None
            answers: Sequence[Answer] = pipe.recv()
        except (EOFError, OSError):
            return None
        return answers

    def _ready_child(self, generation: int) -> Connection[Any, Any] | None:
        """Return the pipe to a child that is ready, started where there is none; None when it is not wanted any
        more.
        """
        while generation == self._generation:
            is_fit = self._child is not None and self._child.is_alive() and not self._is_outdated()
            if is_fit and self._pipe is not None:
                return self._pipe
            self._end_child()
            try:
                self._start_child()
            except (OSError, AttributeError, TypeError, PickleError) as error:
                ending = str(error)
            else:
                if self._is_ready() and generation == self._generation:
                    return self._pipe
                ending = "the process did not start"
            ending = f"{ending}: {self._end_child()}"
            if generation == self._generation:
                # No proof against the row: it has not been sent.
                self._event("job_failed", job="trial", cause=ending)
                self._closing.wait(STARTUP_PAUSE_SECONDS)
        return None

    def _start_child(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        self._child_has = self._properties
        make_publisher = partial(self._make_publisher, self._child_has)
        child = context.Process(target=serve, args=(theirs, make_publisher), name="trial", daemon=True)
        child.start()
        theirs.close()
        with self._child_lock:
            self._child = child

    def _is_outdated(self) -> bool:
        return self._child_has is not self._properties

    def _is_ready(self) -> bool:
        pipe = self._pipe
        if pipe is None or not wait([pipe], STARTUP_SECONDS_MAX):
            return False
        try:
            pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def _end_child(self) -> str:
        """End what is left of the child; return how it ended."""
        with self._child_lock:
            child, self._child = self._child, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if child is None:
            return "never started"
        # Its own end, if the row brought it, is under way: a kill now would hide the reason.
        child.join(1.0)
        if child.is_alive():
            child.kill()
            child.join()
        code = child.exitcode or 0
        child.close()
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"
