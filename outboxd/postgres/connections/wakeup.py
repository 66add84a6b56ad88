"""The wake-up: a thread with a connection of its own that waits for notifications and wakes the relay.

It only saves polling. Whatever it misses is read by the next poll; when its connection is lost, polling is as quick as
without it until the next connection listens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
from sqlalchemy import Engine, PoolProxiedConnection

from outboxd.errors import DatabaseUnavailableError, OutboxdError
from outboxd.policy.exchange.messages import Event, Listening, TellEvent, Woken
from outboxd.postgres.connections.engine import Driver
from outboxd.postgres.connections.failures import in_words
from outboxd.postgres.schema.names import quoted, wakeup_channel

RETRY_SECONDS = 1.0
POOLED_SECONDS = 60.0
"""A pooler is seldom taken away."""
CHECK_SECONDS = 30.0
"""A silent connection is asked whether it is still there this often."""
SLICE_SECONDS = 1.0
"""So long one wait lasts, which is how soon `close` is noticed."""


class PooledError(DatabaseUnavailableError):
    """Notifications cannot come, since a pooler stands between."""


class WakeUp:
    """Listens on the outbox's channel and leaves `Woken` in the mailbox, and `Listening` when that begins or ends."""

    def __init__(self, engine: Engine, post: Callable[[Event], None], *, outbox: str, event: TellEvent) -> None:
        """Prepare; `start` begins. `post` and `event` (the observer's) are called on the thread of this."""
        self._engine = engine
        self._event = event
        self._is_told = False
        self._post = post
        self._channel = quoted(wakeup_channel(outbox))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wake-up", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Listen no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (psycopg.Error, OutboxdError) as error:
                self._lost(in_words(error))
                self._closing.wait(POOLED_SECONDS if isinstance(error, PooledError) else RETRY_SECONDS)

    def _lost(self, cause: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._event("listening_lost", cause=cause)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        try:
            driver: Driver = pooled.driver_connection  # type: ignore[assignment]  # the engine makes them
            if driver.is_pooled:
                raise PooledError("a pooler stands between, which lets no notification through; connect past it")
            driver.execute(f"LISTEN {self._channel}")
            self._is_told = False
            self._event("listening")
            self._post(Listening(active=True))
            try:
                # What was committed before this connection listened told nobody.
                self._post(Woken())
                self._wait(driver)
            finally:
                self._post(Listening(active=False))
        finally:
            _forget(pooled)

    def _wait(self, driver: Driver) -> None:
        silent_seconds = 0.0
        while not self._closing.is_set():
            # A burst of commits is one reason to read.
            if any(True for _ in driver.notifies(timeout=SLICE_SECONDS, stop_after=1)):
                silent_seconds = 0.0
                self._post(Woken())
                continue
            silent_seconds += SLICE_SECONDS
            if silent_seconds >= CHECK_SECONDS:
                silent_seconds = 0.0
                driver.execute("SELECT 1")


def _forget(pooled: PoolProxiedConnection) -> None:
    """A connection that listens is nobody else's: it is closed, never given back."""
    pooled.invalidate()
