"""Everything of the demo running at once: PostgreSQL, broker, daemon; and what can be asked of it."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sqlalchemy import text

from outboxd.config import DatabaseSettings, HttpSettings, KafkaSettings, RetrySettings, Settings
from outboxd.daemon.daemon import Daemon
from outboxd.daemon.signals import ENDING, doing
from outboxd.demo.database import EmbeddedPostgres
from outboxd.demo.findings import Place
from outboxd.demo.stumble import StumblingPublisher
from outboxd.demo.writer import ROWS, WrittenRow, write
from outboxd.errors import BugError
from outboxd.kafka.embedded import EmbeddedBroker
from outboxd.observability.logs import open_log
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from outboxd.postgres.operators.dead_letter_rows import Letter
from outboxd.postgres.operators.dead_letters import DeadLetters
from outboxd.relay.ports import Publisher

RELAY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.05
LOG_CHARS_SHOWN = 2000
SCHEMA = "outboxd"
OUTBOX = "default"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    written: int = 0
    delivered: int = 0
    in_retry: int = 0
    dead: int = 0

    @property
    def is_done(self) -> bool:
        """Every written row has its end."""
        return self.delivered + self.dead == self.written


class Stage:
    """From `with` to its end: the servers and the daemon. Whatever happens within, nothing of it is left behind."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._ends = ExitStack()
        self.token = secrets.token_urlsafe(12)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all of it, the last started first; a signal meanwhile is not to keep it from ending."""
        with doing(dict.fromkeys(ENDING, signal.SIG_IGN)):
            self._ends.close()

    def _start(self) -> None:
        # Without a name in any directory, so that nothing of it can be left behind.
        self._log = os.fdopen(os.memfd_create("outboxd-demo-log"), "w+", encoding="utf-8")
        self._ends.callback(self._log.close)
        self._postgres = EmbeddedPostgres()
        # Before it is started, lest a Ctrl+C come right after that.
        self._ends.callback(self._postgres.close)
        self._postgres.start()
        self.database_url = self._postgres.url
        upgrade(self.database_url, SCHEMA)
        self.bootstrap = self._ends.enter_context(EmbeddedBroker()).bootstrap
        self._engine = make_engine(self.database_url)
        self._ends.callback(self._engine.dispose)
        self.settings = Settings(
            database=DatabaseSettings(url=self.database_url),
            kafka=KafkaSettings(properties={"bootstrap.servers": self.bootstrap, "log_level": "0"}),
            retry=RetrySettings(backoff_initial_seconds=0.5),
            http=HttpSettings(listen="127.0.0.1:0", token=self.token),
        )
        self._daemon = Daemon(
            self.settings,
            log=open_log("info", "json", stream=self._log),
            decorate_publisher=self._stumbling,
        )
        self._thread = threading.Thread(target=self._relay, name="demo-daemon", daemon=True)
        self._ends.callback(self._stop_daemon)
        self._thread.start()

    def _stumbling(self, publisher: Publisher) -> StumblingPublisher:
        self.stumbling = StumblingPublisher(publisher)
        return self.stumbling

    def _relay(self) -> None:
        try:
            self._daemon.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that watches
            self._failure = error

    def _stop_daemon(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS_MAX
        self._daemon.stop()
        self._thread.join(STOP_SECONDS_MAX - 5.0)
        if self._thread.is_alive():
            self._daemon.stop()
            self._thread.join(max(0.0, deadline - time.monotonic()))

    # --- What happens

    def play(self, watch: Callable[[Progress], None], rows: int = ROWS) -> list[WrittenRow]:
        """Write the rows while the daemon relays, and wait until every one has its end.

        Args:
            watch: told how far it is, again and again.
            rows: how many.

        Raises:
            BugError: some have no end within a minute, or the daemon ended; with the end of its log.
        """
        written: list[WrittenRow] = []
        for transaction in write(self.database_url, SCHEMA, rows):
            written.extend(transaction)
            if len(written) % (rows // 20 or 1) == 0:
                watch(self.progress(len(written)))
        deadline = time.monotonic() + RELAY_SECONDS_MAX
        while not (progress := self.progress(len(written))).is_done:
            watch(progress)
            if self._failure is not None or not self._thread.is_alive():
                raise BugError(f"the daemon ended: {self._failure}; {self.log_tail()}") from self._failure
            if time.monotonic() > deadline:
                raise BugError(
                    f"after {RELAY_SECONDS_MAX:.0f} s not every row has its end: {progress}; {self.log_tail()}"
                )
            time.sleep(LOOK_SECONDS)
        watch(progress)
        return written

    def wait_for_signal(self) -> None:
        """Leave all of it running until KeyboardInterrupt is raised by a signal.

        Raises:
            BugError: the daemon ended by itself.
        """
        while self._thread.is_alive():
            self._thread.join(1.0)
        raise BugError(f"the daemon ended: {self._failure}; {self.log_tail()}") from self._failure

    # --- What can be asked

    def progress(self, written: int) -> Progress:
        """Counts from the database."""
        with self._engine.connect() as connection:
            delivered, in_retry, dead = connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM outboxd.outbox WHERE published_at IS NOT NULL),"
                    " (SELECT count(*) FROM outboxd.retry), (SELECT count(*) FROM outboxd.dead_letter)"
                )
            ).one()
        return Progress(written, delivered, in_retry, dead)

    def places(self) -> dict[int, Place]:
        """Row → where the outbox says that it was delivered."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT id, published_partition, published_offset FROM outboxd.outbox"
                    " WHERE published_at IS NOT NULL ORDER BY id"
                )
            )
            return {row_id: Place(partition, offset) for row_id, partition, offset in rows}

    def dead_letters(self) -> Sequence[Letter]:
        """What died."""
        return DeadLetters(self._engine, SCHEMA, OUTBOX).list()

    def page_address(self) -> str:
        """Host and port of the daemon's page."""
        server = self._daemon.surroundings.server
        address = None if server is None else server.address
        if address is None:
            raise BugError("the demo's daemon has no page")
        return "{}:{}".format(*address)

    def server_version(self) -> str:
        """Of PostgreSQL."""
        with self._engine.connect() as connection:
            return str(connection.execute(text("SHOW server_version")).scalar_one()).partition(" ")[0]

    def log_tail(self) -> str:
        """The end of the daemon's log."""
        self._log.seek(0)
        return f"its log ends: {self._log.read()[-LOG_CHARS_SHOWN:].strip() or 'empty'}"
