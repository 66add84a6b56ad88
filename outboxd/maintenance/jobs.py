"""The jobs and their times, by APScheduler: one run of each at a time, late ones are run and not dropped, failures are
seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from outboxd.maintenance.dead_letter_copies import Copier, CopyRows, DeadLetterCopies
from outboxd.maintenance.gauges import Gauges, GaugeStore
from outboxd.maintenance.memory import give_back_memory
from outboxd.maintenance.purge import LeftoversPurge, Pace, PublishedPurge, PurgeStore
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import StatusBoard
from outboxd.policy.exchange.messages import TellEvent

GAUGES_SECONDS: Final = 15.0
PUBLISHED_SECONDS: Final = 60.0
LEFTOVERS_SECONDS: Final = 600.0
COPIES_SECONDS: Final = 2.0
MEMORY_SECONDS: Final = 300.0
CLOCK_STEP_SECONDS: Final = 2.0
"""A clock that is only slowed down goes back by less between two looks."""


class HousekeepingStore(PurgeStore, GaugeStore, Protocol):
    """The database, as the jobs see it."""


class _Threads:
    """A pool, as APScheduler takes one, of a thread a run. No end of the process waits for these: a statement may wait
    for a server that stands still.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        """`failed(job, error)` is told where no thread is to be had for a run."""
        self._failed = failed

    def submit(self, run: Callable[..., Any], job: Any, *arguments: Any) -> Future[Any]:
        """Run it on a thread of its own."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(run(job, *arguments))
            except BaseException as error:  # noqa: BLE001 - who waits for the future is told, whatever it is
                future.set_exception(error)

        try:
            threading.Thread(target=work, name="housekeeping", daemon=True).start()
        except RuntimeError as error:
            # This run is left out; what is not told of it here nobody hears.
            self._failed(job.id, error)
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True) -> None:
        """Nothing has to end."""


class _ThreadExecutor(BasePoolExecutor):  # type: ignore[misc]  # APScheduler has no types
    """Runs jobs by such a pool."""

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        super().__init__(_Threads(failed))


class Jobs:
    """The daemon's housekeeping. The retentions may be changed at any time; zero keeps for ever."""

    def __init__(
        self,
        store: HousekeepingStore,
        board: StatusBoard,
        metrics: Metrics,
        event: TellEvent,
        *,
        schema: str,
        published_retention_seconds: float,
        dead_letter_retention_seconds: float,
        copies: tuple[CopyRows, Copier] | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`event` is the observer's; `copies` are made of dead letters where a topic is configured. Only the owner
        removes or copies anything; every daemon measures. `wall` and `monotonic` are clocks, in seconds.
        """
        self._wall, self._monotonic = wall, monotonic
        self._clock_offset = float("-inf")
        self.published_retention_seconds = published_retention_seconds
        self.dead_letter_retention_seconds = dead_letter_retention_seconds
        self._metrics = metrics
        self._event = event
        self._board = board
        self._stop = threading.Event()
        self._failing: set[str] = set()
        self._published = PublishedPurge(store, Pace(self._stop, self._is_owner))
        self._leftovers = LeftoversPurge(store, Pace(self._stop, self._is_owner))
        self._gauges = Gauges(store, board, metrics, event, schema=schema, is_owner=self._is_owner)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": _ThreadExecutor(self._failed)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        # What it would log of failures itself, `_on_end` tells; without a handler it would go to standard error.
        logging.getLogger("apscheduler").addHandler(logging.NullHandler())
        self._scheduler.add_listener(self._on_end, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED)
        # The first run of an interval comes after one interval, unless it is asked for.
        self._add("gauges", self._gauges.run, GAUGES_SECONDS, at_once=True)
        self._add("purge_published", self.purge_published, PUBLISHED_SECONDS)
        self._add("purge_leftovers", self.purge_leftovers, LEFTOVERS_SECONDS)
        self._add("give_back_memory", give_back_memory, MEMORY_SECONDS)
        if copies is not None:
            copying = DeadLetterCopies(*copies, self._stop, self._is_owner)
            self._add("copy_dead_letters", copying.run, COPIES_SECONDS)

    def start(self) -> None:
        """Run the jobs at their times from now on."""
        self._scheduler.start()

    def follow_clock(self) -> None:
        """Run all jobs at once where the wall clock was set back: their times are of that clock, and would come that
        much later. Called a few times a second.
        """
        former, self._clock_offset = self._clock_offset, self._wall() - self._monotonic()
        if self._clock_offset < former - CLOCK_STEP_SECONDS and self._scheduler.running:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))

    def stop(self) -> None:
        """Run no more; a batch under way ends within its statement's time limit."""
        self._stop.set()
        if self._scheduler.running:
            # It waits for its thread, which may be what could not be started.
            with suppress(RuntimeError):
                self._scheduler.shutdown(wait=False)

    def purge_published(self) -> None:
        """Remove published rows that are past their retention."""
        self._removed("outbox", self._published.run(self.published_retention_seconds))

    def purge_leftovers(self) -> None:
        """Remove resolved dead letters, orphaned retries and old starts."""
        for table, rows in self._leftovers.run(self.dead_letter_retention_seconds).items():
            self._removed(table, rows)

    def _removed(self, table: str, rows: int) -> None:
        if rows:
            self._metrics.purged.labels(table).inc(rows)
            self._event("purged", table=table, rows=rows)

    def _is_owner(self) -> bool:
        status = self._board.relay
        return status is not None and status.role == "owner"

    def _add(self, name: str, run: Callable[[], object], seconds: float, *, at_once: bool = False) -> None:
        def timed() -> None:
            began_at = time.monotonic()
            run()
            self._metrics.job_seconds.labels(name).set(time.monotonic() - began_at)

        first: dict[str, Any] = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(timed, "interval", seconds=seconds, id=name, name=name, **first)

    def _on_end(self, ended: Any) -> None:
        """Count a failure each time, and log it once until the job succeeds again."""
        if self._stop.is_set():
            # The connections end under a job that is still running then.
            return
        if ended.exception is None:
            self._failing.discard(ended.job_id)
        else:
            self._failed(ended.job_id, ended.exception)

    def _failed(self, job: str, error: Exception) -> None:
        self._metrics.job_failures.labels(job).inc()
        if job not in self._failing:
            self._failing.add(job)
            self._event("job_failed", job=job, cause=f"{type(error).__name__}: {error}")
