"""The lease: the right to relay an outbox, kept by a thread and a connection of its own.

    standing by ──acquired (the former one is over)──▶ holding ──renewed every third of the ttl──▶ holding
         ▲                                                │
         └───── a renewal finds another holder, or trust runs out before one succeeds; or given up ◀┘

The database's clock decides who holds it, or what a standby saw itself, where that clock was set: see
`policy.lease_watch`. What this daemon trusts is its own clock: from *before* a renewal was sent, for the ttl less a
margin; when that runs out it stops by itself, before anybody else may start.
Every acquisition takes a new holder id and a higher token, which fence each settlement.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Engine

from outboxd.errors import OutboxdError
from outboxd.policy.blame.fencings import MOVED, RIVAL
from outboxd.policy.exchange.messages import Event, LeaseGranted, LeaseLost
from outboxd.policy.lease_watch import LeaseVersion, LeaseWatch
from outboxd.postgres.connections.failures import in_words
from outboxd.postgres.connections.lock_limit import milliseconds
from outboxd.postgres.connections.sessions import Connection
from outboxd.postgres.lease.lease_obstacles import doubt_of, other_outbox_of
from outboxd.postgres.lease.lease_sql import acquire_text, end_stale_text, release_text, renew_text
from outboxd.postgres.lease.ownership import Owner, has_moved, storage_of, timeline_of
from outboxd.postgres.lease.sightings import as_seen, look
from outboxd.postgres.lease.trust import Trust, wakeful_time
from outboxd.postgres.schema.names import quoted, quoted_beside_parameters
from outboxd.stopwatch import Stopwatch

ACQUIRING_SECONDS_MAX = 0.5
"""So long the lease's row may be locked by others before it is looked into who does: settlements take less."""
OBSTACLES_SECONDS = 2.0
"""So often a standby looks whether it is more than another daemon that keeps it from the outbox."""

_LOGGER = logging.getLogger("outboxd.lease")


class LeaseKeeper:
    """Acquires, renews and gives up one outbox's lease."""

    def __init__(
        self,
        engine: Engine,
        post: Callable[[Event], None],
        on_owner: Callable[[Owner], None],
        *,
        schema: str,
        outbox: str,
        daemon: str,
        ttl_seconds: float,
        relayed_table: str = "outbox",
        listening: bool = False,
        deletes_published: bool = False,
        exactly_once: bool = False,
    ) -> None:
        """Prepare; `start` begins. `on_owner` learns of each acquisition before `LeaseGranted` is posted.

        `relayed_table` is shared with no outbox of another name. `deletes_published` says that this daemon deletes
        published rows instead of marking them. The lease keeps it: a replay can then not exclude that newer rows of a
        key were published. `exactly_once` takes no outbox over on which a daemon with at-least-once delivery left rows
        in doubt.
        """
        self._engine = engine
        self._post = post
        self._on_owner = on_owner
        self._outbox, self._daemon = outbox, daemon
        self._ttl_seconds = ttl_seconds
        # A renewal that waits for a lock longer than this is as good as failed; the next one tries again.
        self._lock_seconds = max(0.1, ttl_seconds / 6)
        self._relayed_table = relayed_table
        self._relayed = f"{quoted(schema)}.{quoted(relayed_table)}"
        self._listening = listening
        self._deleted_through = None if deletes_published else 0
        self._exactly_once = exactly_once
        self._was_undrained = False
        self._drained = False
        self._is_refusal_told = False
        self._obstacles_at = float("-inf")
        self._schema = schema
        self._table = f"{quoted_beside_parameters(schema)}.lease"
        self._watch = LeaseWatch()
        self._trust = Trust(ttl_seconds)
        self._held: tuple[Owner, int] | None = None
        self._wake = threading.Event()
        self._closing = False
        self._is_over = False
        self._giving_up: int | None = None
        self._connection: Any = None
        self.last_error: str | None = None
        self.database = ""
        """What the database calls itself; known from the first acquisition on."""
        self.under_way = Stopwatch()
        self.has_rival = False
        """Whether the database said once that another daemon owns the outbox."""
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to acquire."""
        self._thread.start()

    def trusted_until(self) -> float:
        """Return the monotonic time up to which nobody else can own the outbox."""
        return self._trust.until()

    def give_up(self, token: int, *, drained: bool = False, emptied: bool = False) -> None:
        """Release the lease of this token at once, if it is still ours; then stand by.

        `drained`: nothing that this owner published is unsettled. `emptied`: nor is there anything pending that one
        before it may have published.
        """
        held = self._held
        if held is not None and held[1] != token:
            # Lost and acquired anew, while the relay still stood down from the one before.
            return
        self._drained = emptied or (drained and not self._was_undrained)
        self._trust.end()
        self._giving_up = token
        self._wake.set()

    def acquire_no_more(self) -> None:
        """The relay is over: what else has to end may take a while, and this daemon is not to own the outbox in it."""
        self._is_over = True

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Release what is held and end the thread."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    # The thread.

    def _keep(self) -> None:
        while True:
            with self.under_way.running():
                pause = self._step()
            if self._closing:
                self._release()
                self._disconnect()
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _step(self) -> float:
        """Do what is due now and return how long to wait, in seconds."""
        try:
            given_up, self._giving_up = self._giving_up, None
            if given_up is not None and (self._held is None or self._held[1] == given_up):
                self._release()
                return min(1.0, self._ttl_seconds / 10)
            if self._closing:
                return 0.0
            if self._is_over:
                # Granted to a relay that had ended meanwhile.
                self._release()
                return self._ttl_seconds
            if self._held is None:
                return self._acquire()
            return self._renew(*self._held)
        except Exception as error:  # noqa: BLE001 - whatever it is, trust runs out by itself and the next step tries again
            self.last_error = in_words(error)
            self._disconnect()
            return min(0.5, self._ttl_seconds / 10)

    def _acquire(self) -> float:
        seen = look(self._connected(), self._table, self._outbox)
        now = time.monotonic()
        if seen is not None and not self._watch.is_over(seen, now):
            return self._stand_by(now)
        version = None if seen is None else seen.version
        sent_at = wakeful_time()
        holder = str(uuid.uuid4())
        arguments = {
            "outbox": self._outbox,
            "holder": holder,
            "daemon": self._daemon,
            "ttl": self._ttl_seconds,
            "listening": self._listening,
            "deleted_through": self._deleted_through,
            "relayed_table": self._relayed_table,
            "exactly_once": self._exactly_once,
            "lock_timeout": milliseconds(min(ACQUIRING_SECONDS_MAX, self._lock_seconds)),
            **as_seen(version),
        }
        try:
            row = self._connected().execute(acquire_text(self._table), arguments).fetchone()
        except errors.LockNotAvailable:
            self._end_stale(version)
            return 0.0
        if row is None:
            return self._stand_by(now)
        self.last_error = None
        self._was_undrained, self._drained, self.database = bool(row[1]), False, str(row[2])
        self._is_refusal_told = False
        token, connection = int(row[0]), self._connected()
        owner = Owner(holder, timeline_of(connection), storage_of(connection, self._relayed))
        self._held = (owner, token)
        self._trust.begin(sent_at)
        self._on_owner(owner)
        self._post(LeaseGranted(token))
        return self._ttl_seconds / 3

    def _stand_by(self, now: float) -> float:
        """The lease is another's, or somebody took it just before us: look again soon."""
        self.last_error, self.has_rival = None, True
        if not self._is_refusal_told and now >= self._obstacles_at:
            self._obstacles_at = now + OBSTACLES_SECONDS
            self._look_for_obstacles()
        return min(0.5, self._ttl_seconds / 10)

    def _end_stale(self, version: LeaseVersion | None) -> None:
        """Whoever was the owner has stopped by now: what it left under way must not keep its successor waiting."""
        arguments = {"outbox": self._outbox, **as_seen(version)}
        ended = self._connected().execute(end_stale_text(self._table), arguments).fetchall()
        if ended:
            _LOGGER.warning("the last settlement of an owner whose lease has expired still locked it, and was ended")

    def _look_for_obstacles(self) -> None:
        """Nobody may stand by for ever because of rows in doubt, or of a name, without a word about it."""
        connection = self._connected()
        other = other_outbox_of(connection, self._schema, self._outbox, self._relayed_table)
        refusal = None if other is None else ". ".join(other)
        if refusal is None and self._exactly_once:
            refusal = doubt_of(connection, self._schema, self._outbox)
        if refusal is not None:
            self._is_refusal_told = True
            _LOGGER.error(refusal)

    def _renew(self, owner: Owner, token: int) -> float:
        sent_at = wakeful_time()
        if self._trust.is_over():
            # Too late to be sure: the relay has stopped by itself. It is told again, and the lease is asked for anew.
            self._lose("the lease could not be renewed in time")
            return 0.0
        row = self._connected().execute(renew_text(self._table), self._proof(owner, token)).fetchone()
        self.last_error = None
        if row is None:
            self._lose(MOVED if has_moved(self._connected(), owner, self._relayed) else RIVAL)
            return 0.0
        self._trust.begin(sent_at)
        return self._ttl_seconds / 3

    def _proof(self, owner: Owner, token: int) -> dict[str, object]:
        return {
            "outbox": self._outbox,
            "holder": owner.holder,
            "token": token,
            "ttl": self._ttl_seconds,
            "relayed_table": self._relayed_table,
            "lock_timeout": milliseconds(self._lock_seconds),
        }

    def _lose(self, reason: str) -> None:
        self._held = None
        self._trust.end()
        self._post(LeaseLost(reason))

    def _release(self) -> None:
        held, self._held = self._held, None
        self._trust.end()
        if held is None:
            return
        was_connected = self._connection is not None
        if not self._try_to_release(*held) and was_connected:
            # That server may be gone, and another be there: nobody need wait for the ttl.
            self._try_to_release(*held)

    def _try_to_release(self, owner: Owner, token: int) -> bool:
        """Return whether the database heard of it."""
        try:
            arguments = {**self._proof(owner, token), "drained": self._drained}
            self._connected().execute(release_text(self._table), arguments)
        except (psycopg.Error, OutboxdError) as error:
            # It then ends by itself, a ttl after its last renewal.
            self.last_error = in_words(error)
            self._disconnect()
            return False
        return True

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.raw_connection()
        driver_connection: Connection = self._connection.driver_connection
        return driver_connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
