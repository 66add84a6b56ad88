"""The purge: removes what is past its retention in small batches with rests between, so that nothing else notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from outboxd.policy.rows.records import FIRST_ID

BATCH_ROWS = 5_000
RESOLVED_BATCH_ROWS = 1_000
RUN_SECONDS_MAX = 40.0
REST_SHARE = 2.0
"""After each batch it rests for so many times as long as the batch took."""
WHOLE_WALK_SECONDS = 3_600.0
"""So often the walk begins at the lowest id again, since ids below those that were kept may turn up."""


class Step(Protocol):
    """One step along the outbox."""

    @property
    def removed(self) -> int:
        """Rows removed."""
        ...

    @property
    def last_id(self) -> int:
        """The last id seen."""
        ...

    @property
    def first_kept_id(self) -> int | None:
        """The lowest id that stays."""
        ...

    @property
    def at_end(self) -> bool:
        """Whether nothing older follows."""
        ...


class PurgeStore(Protocol):
    """The database, as the purge sees it."""

    def remove_published(self, cursor: int, rows_max: int, retention_seconds: float) -> Step:
        """Look at the next rows by id, and remove those that were published longer ago than this."""
        ...

    def time_resolved(self, rows_max: int) -> int:
        """Note now as the time of dead letters that were resolved by hand without one; return how many."""
        ...

    def remove_resolved(self, rows_max: int, retention_seconds: float) -> int:
        """Remove resolved dead letters; return how many."""
        ...

    def remove_orphaned_retries(self, rows_max: int) -> int:
        """Remove rows of `retry` that belong to nothing; return how many."""
        ...

    def remove_old_starts(self, rows_max: int) -> int:
        """Remove old notes of starts; return how many."""
        ...


class Pace:
    """When a run ends, and how long it rests between batches."""

    def __init__(
        self,
        stop: threading.Event,
        may_go_on: Callable[[], bool] = lambda: True,
        *,
        run_seconds_max: float = RUN_SECONDS_MAX,
        rest_share: float = REST_SHARE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stop` ends it at once; `may_go_on` says whether this daemon still owns the outbox."""
        self._stop = stop
        self._may_go_on = may_go_on
        self._run_seconds_max = run_seconds_max
        self._rest_share = rest_share
        self._monotonic = monotonic
        self._began_at = self._batch_began_at = 0.0

    def begin(self) -> bool:
        """A run begins; return whether it may."""
        self._began_at = self._batch_began_at = self._monotonic()
        return not self._stop.is_set() and self._may_go_on()

    def rest(self) -> bool:
        """Rest after a batch; return whether there is to be another one."""
        now = self._monotonic()
        if now - self._began_at >= self._run_seconds_max:
            return False
        if self._stop.wait(self._rest_share * (now - self._batch_began_at)):
            return False
        self._batch_began_at = self._monotonic()
        return self._may_go_on()


class PublishedPurge:
    """Walks the outbox by id and removes rows published longer ago than the retention."""

    def __init__(
        self,
        store: PurgeStore,
        pace: Pace,
        *,
        batch_rows: int = BATCH_ROWS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A walk that its time cuts short goes on at the next run."""
        self._store = store
        self._pace = pace
        self._batch_rows = batch_rows
        self._monotonic = monotonic
        self._cursor = FIRST_ID
        self._floor: int | None = None
        self._whole_at = float("-inf")

    def run(self, retention_seconds: float) -> int:
        """Remove what is due; return how many rows. Zero seconds keep all for ever."""
        removed = 0
        goes = retention_seconds > 0 and self._pace.begin()
        while goes:
            step = self._store.remove_published(self._cursor, self._batch_rows, retention_seconds)
            removed += step.removed
            self._cursor = step.last_id
            if self._floor is None:
                self._floor = step.first_kept_id
            if step.at_end:
                self._begin_again()
                break
            goes = self._pace.rest()
        return removed

    def _begin_again(self) -> None:
        """The next walk begins at the lowest row that stayed: what is below was removed and need not be read again."""
        now = self._monotonic()
        if now - self._whole_at >= WHOLE_WALK_SECONDS:
            self._whole_at = now
            self._cursor = FIRST_ID
        elif self._floor is not None:
            self._cursor = self._floor - 1
        self._floor = None


class LeftoversPurge:
    """Removes resolved dead letters, orphaned retries and old notes of starts."""

    def __init__(self, store: PurgeStore, pace: Pace, *, batch_rows: int = RESOLVED_BATCH_ROWS) -> None:
        """Each in batches of `batch_rows`."""
        self._store = store
        self._pace = pace
        self._batch_rows = batch_rows

    def run(self, dead_letter_retention_seconds: float) -> dict[str, int]:
        """Remove what is due; return how many rows of each table. Zero seconds keep dead letters for ever."""
        rows_max, store = self._batch_rows, self._store
        steps: dict[str, Callable[[], int]] = {
            "retry": lambda: store.remove_orphaned_retries(rows_max),
            "start": lambda: store.remove_old_starts(rows_max),
        }
        if dead_letter_retention_seconds > 0:
            self._repeat(lambda: store.time_resolved(rows_max))
            steps["dead_letter"] = lambda: store.remove_resolved(rows_max, dead_letter_retention_seconds)
        return {table: self._repeat(step) for table, step in steps.items()}

    def _repeat(self, step: Callable[[], int]) -> int:
        removed = 0
        goes = self._pace.begin()
        while goes:
            rows = step()
            removed += rows
            goes = rows >= self._batch_rows and self._pace.rest()
        return removed
