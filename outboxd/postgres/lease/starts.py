"""The start log: a row for each time a daemon begins to relay, closed at its clean end. One without an end is a crash.

It is written on a thread of its own, when the lease is granted; a daemon that only stands by leaves nothing there. The
relay publishes nothing before it is known how the owner before ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from queue import Empty, Queue

from sqlalchemy import Engine

from outboxd.errors import DatabaseUnavailableError
from outboxd.policy.careful import Opening
from outboxd.postgres.connections.arrays import Int8Array
from outboxd.postgres.connections.lock_limit import milliseconds
from outboxd.postgres.connections.sessions import Connection, Job, Session
from outboxd.postgres.lease.ownership import locked_text
from outboxd.postgres.schema.names import quoted_beside_parameters

RETRY_SECONDS = 0.5
LOCK_SECONDS_MAX = 0.5
FAILURES_TOLD = 2
_CLEAN_END = "ended_at = now(), clean = true, published_ids = NULL"


class StartLog:
    """One daemon's rows in the table `start`. Implements the relay's `StartJournal`."""

    def __init__(self, engine: Engine, schema: str, outbox: str, daemon: str) -> None:
        """`daemon` is `host:pid`."""
        self._table = f"{quoted_beside_parameters(schema)}.start"
        self._owned = locked_text(schema)
        self._outbox, self._daemon = outbox, daemon
        self._session = Session(engine, "starts")
        self.under_way = self._session.under_way
        self._id: int | None = None
        self._opening: Opening | None = None
        self._wanted = 0
        self._written = 0
        self._closing = threading.Event()
        self.failure: str | None = None
        """Why what the relay waits for cannot be written, where it failed more than once."""

    # For the lease.

    def owned(self, holder: str) -> None:
        """This daemon owns the outbox from now on, as this holder of the lease: write its row, and learn how the owner
        before ended.
        """
        self._opening = None
        self._submit(partial(self._begin, holder))

    # For the relay.

    def opening(self) -> Opening | None:
        """Return how the owner before ended; None while that is not known yet."""
        return self._opening

    def write(self, record_ids: Sequence[int]) -> None:
        """Begin to record these ids as in the air."""
        self._wanted += 1
        self._submit(partial(self._write, self._wanted, list(record_ids)))

    def is_written(self) -> bool:
        """Say whether the last `write` is in the database."""
        return self._written == self._wanted

    # For the daemon.

    def ended(self, timeout_seconds: float) -> None:
        """Write the clean end, if this daemon ever began to relay. Raises DatabaseUnavailableError where that fails, or
        has no answer within `timeout_seconds`.
        """
        self._closing.set()
        until = time.monotonic() + timeout_seconds
        # Once more where the first finds a connection that is lost.
        failure = None if self._id is None else self._try_to_end(until) and self._try_to_end(until)
        self._session.close(timeout_seconds if failure is None else 0.0)
        if failure is not None:
            raise DatabaseUnavailableError(failure or f"no answer within {timeout_seconds:.0f} s")

    def _try_to_end(self, until: float) -> str | None:
        """Return why the clean end could not be written, nothing where nobody said so by then; None when it is."""
        # No SimpleQueue: a signal may have the main thread wait for one without limit, see `outboxd.daemon.mailbox`.
        told: Queue[str | None] = Queue()

        def end(connection: Connection) -> None:
            self._write_end(connection, self._id)
            told.put(None)

        self._session.submit(end, told.put)
        try:
            return told.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            return ""

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End the thread, or leave it behind after `timeout_seconds`; a row that is open stays so."""
        self._closing.set()
        self._session.close(timeout_seconds)

    # The thread.

    def _submit(self, job: Job) -> None:
        failures = 0

        def run(connection: Connection) -> None:
            job(connection)
            self.failure = None

        def failed(message: str) -> None:
            # The relay waits for it: nothing goes unrecorded. A connection that was lost need not be told once more.
            nonlocal failures
            failures += 1
            if failures >= FAILURES_TOLD:
                self.failure = message
            if not self._closing.wait(RETRY_SECONDS):
                self._session.submit(run, failed)

        self._session.submit(run, failed)

    def _begin(self, holder: str, connection: Connection) -> None:
        # Nothing where the lease is another's by now, as after a freeze or a failure: a row of this daemon would stand
        # above that of its successor, whose record nobody would look at. Nobody takes it before this is written.
        rows = connection.execute(
            # Its own row before: it lost the lease and did not die. But what it suspects of the death of another, it
            # suspects still, and care that was not over goes on.
            f"WITH owned AS MATERIALIZED ({self._owned}),"
            " former AS (SELECT s.ended_at IS NOT NULL OR (s.id IS NOT DISTINCT FROM %(own)s::bigint"
            " AND s.published_ids IS NULL) AS clean, coalesce(s.published_ids, '{}') AS published_ids"
            f" FROM {self._table} AS s WHERE s.outbox = %(outbox)s ORDER BY s.id DESC LIMIT 1),"
            f" began AS (INSERT INTO {self._table} (outbox, daemon, published_ids) SELECT %(outbox)s, %(daemon)s,"
            # What is not cleared stays suspected, should this owner die before it writes anything itself.
            f" (SELECT f.published_ids FROM former AS f WHERE NOT f.clean) FROM owned RETURNING id),"
            f" ended AS (UPDATE {self._table} AS s SET {_CLEAN_END} FROM began WHERE s.id = %(own)s)"
            " SELECT b.id, f.clean, f.published_ids FROM began AS b LEFT JOIN former AS f ON true",
            {
                "outbox": self._outbox,
                "daemon": self._daemon,
                "holder": holder,
                "own": self._id,
                "lock_timeout": milliseconds(LOCK_SECONDS_MAX),
            },
        ).fetchall()
        if not rows:
            return
        self._id, clean, published_ids = rows[0]
        was_clean = clean is None or clean
        self._opening = Opening(was_clean, frozenset() if was_clean else frozenset(published_ids))

    def _write_end(self, connection: Connection, start_id: int | None) -> None:
        connection.execute(f"UPDATE {self._table} SET {_CLEAN_END} WHERE id = %s", (start_id,))

    def _write(self, number: int, record_ids: Sequence[int], connection: Connection) -> None:
        # It has to outlive this process, not the server: the commit need not wait for the disk. Nothing is recorded any
        # more where care is over and nobody suspected: NULL, as after a clean end.
        connection.execute(
            f"UPDATE {self._table} SET published_ids = %s"
            " WHERE id = %s AND set_config('synchronous_commit', 'off', true) IS NOT NULL",
            (Int8Array(record_ids) if record_ids else None, self._id),
        )
        self._written = number
