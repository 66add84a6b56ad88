"""A session: one thread with one connection, taking jobs from a queue, one at a time.

A connection on which a job failed is closed and made anew for the next job. Behind a pooler that shares server
connections, a prepared statement of ours may be unknown or taken there: when that shows, this session prepares none
any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Engine, PoolProxiedConnection

from outboxd.postgres.connections.arrays import register_arrays
from outboxd.postgres.connections.engine import Driver
from outboxd.postgres.connections.failures import in_words
from outboxd.postgres.connections.lock_limit import milliseconds
from outboxd.stopwatch import Stopwatch

Connection = psycopg.Connection[tuple[Any, ...]]
Job = Callable[[Connection], None]
OnFailure = Callable[[str], None]

PREPARE_THRESHOLD = 5
"""After so many executions psycopg prepares a statement."""
# The role may have a shorter one of its own; none is 0.
_LIMIT = """SELECT set_config('statement_timeout', least(nullif(setting::bigint, 0), %s::bigint)::text, false)
    FROM pg_settings WHERE name = 'statement_timeout'"""
_POOLED = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)


class Session:
    """Runs jobs on its own thread. `close` ends it after the job under way."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        statement_timeout_seconds: float | None = None,
        lock_timeout_seconds: float | None = None,
    ) -> None:
        """`name` is the thread's. No statement may take longer than `statement_timeout_seconds`, or than the role says,
        nor wait for a lock for longer than `lock_timeout_seconds`; behind a pooler only what the role says counts.
        """
        self._statement_timeout_seconds = statement_timeout_seconds
        self._lock_timeout_seconds = lock_timeout_seconds
        self._engine = engine
        self._prepare_threshold: int | None = PREPARE_THRESHOLD
        self._jobs: SimpleQueue[tuple[Job, OnFailure] | None] = SimpleQueue()
        self._pooled: PoolProxiedConnection | None = None
        self._driver: Driver | None = None
        self.under_way = Stopwatch()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, on_failure: OnFailure) -> None:
        """Run `job` with a connection; `on_failure(message)` is called instead of raising."""
        self._jobs.put((job, on_failure))

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End the thread once its job is through, or leave it behind after `timeout_seconds`."""
        self._jobs.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, on_failure = task
            with self.under_way.running():
                try:
                    job(self._connection())
                except Exception as error:  # noqa: BLE001 - whatever it is, who gave the job waits for its end
                    on_failure(self._failed(error))
        self._disconnect()

    def _connection(self) -> Connection:
        # Kept apart, since the pool looks for it anew whenever it is asked.
        if self._driver is None:
            pooled = self._engine.raw_connection()
            driver: Driver = pooled.driver_connection  # type: ignore[assignment]  # the engine makes them
            driver.prepare_threshold = None if driver.is_pooled else self._prepare_threshold
            register_arrays(driver)
            if self._statement_timeout_seconds is not None and not driver.is_pooled:
                driver.execute(_LIMIT, (round(self._statement_timeout_seconds * 1000),))
            if self._lock_timeout_seconds is not None and not driver.is_pooled:
                # For the tables, whose locks a statement takes before anything in it could say so.
                limit = milliseconds(self._lock_timeout_seconds)
                driver.execute("SELECT set_config('lock_timeout', %s, false)", (limit,))
            self._pooled, self._driver = pooled, driver
        return self._driver

    def _failed(self, error: Exception) -> str:
        if isinstance(error, _POOLED):
            self._prepare_threshold = None
        self._disconnect()
        # Other errors than a lost connection are rare here; a new connection is cheap beside being wrong about the
        # old one.
        return in_words(error)

    def _disconnect(self) -> None:
        pooled, self._pooled, self._driver = self._pooled, None, None
        if pooled is not None:
            pooled.invalidate()
