"""The daemon: one relay from start to end, under a service manager or by hand.

    started ──schema checked──▶ standing by or owner ──first fetch and a broker's answer──▶ READY
            ──SIGTERM or SIGINT──▶ draining (STOPPING) ──▶ ended; a second signal ends at once

The relay runs on the main thread, where signals arrive: a signal's handler only leaves a stop in the mailbox.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from confluent_kafka import KafkaException

from outboxd.config import Settings
from outboxd.errors import EXIT_OK, EXIT_UNAVAILABLE
from outboxd.observability.logs import Log, open_log
from outboxd.observability.metrics import Metrics
from outboxd.observability.observer import DaemonObserver
from outboxd.observability.status import StatusBoard
from outboxd.policy.messages import StopRequested
from outboxd.postgres.failures import explained
from outboxd.postgres.migrate import check_schema
from outboxd.postgres.pending import describe_pending
from outboxd.relay.ports import Publisher
from outboxd.relay.relay import Relay, RelayEnd
from outboxd.service_manager import ServiceManager
from outboxd.wiring import Assembly, assemble, daemon_name

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits; a report's round trip hangs on it."""
GC_THRESHOLDS = (200_000, 50, 50)
"""Thousands of short-lived tuples a batch are no reason to look for cycles."""
CONTACT_SECONDS = 5.0
CONTACT_PAUSE_SECONDS = 15.0

DecoratePublisher = Callable[[Publisher], Publisher]


class Daemon:
    """Owns one assembly for its life."""

    def __init__(
        self,
        settings: Settings,
        *,
        until_empty: bool = False,
        log: Log | None = None,
        decorate_publisher: DecoratePublisher | None = None,
    ) -> None:
        """Make all parts; nothing is connected yet. `decorate_publisher` wraps the broker's port, see `assemble`."""
        secrets = [settings.database.password, settings.http.token]
        self.settings = settings
        self.log = log or open_log(settings.log.level, settings.log.format, secrets=secrets)
        self.board = StatusBoard(outbox=settings.outbox.name, daemon=daemon_name())
        self.metrics = Metrics(self.board, dropped_lines=lambda: self.log.dropped)
        self.observer = DaemonObserver(self.log, self.metrics, self.board)
        self.assembly: Assembly = assemble(
            settings, self.observer, until_empty=until_empty, decorate_publisher=decorate_publisher
        )
        self._manager = ServiceManager()
        self._broker_answered = threading.Event()
        self._stopping = threading.Event()
        self._ready = False

    def check(self) -> None:
        """Refuse to start where the schema is missing or old, or PostgreSQL does not answer."""
        with explained(), self.assembly.engine.connect() as connection:
            check_schema(connection, self.settings.database.schema_)

    def run(self) -> int:
        """Relay until stopped, or until nothing is left; return the exit code."""
        self.check()
        _tune_interpreter()
        self.assembly.relay.on_turn = self._on_turn
        threading.Thread(target=self._keep_contact, name="broker-contact", daemon=True).start()
        self.assembly.lease.start()
        try:
            with self._signals():
                end = self.assembly.relay.run()
            self.assembly.starts.ended()
        finally:
            self._stopping.set()
            self._manager.stopping(self.settings.relay.shutdown_timeout_seconds)
            self.assembly.close()
        code = self._conclude(end)
        self.log.close()
        return code

    def stop(self) -> None:
        """Ask the relay to drain and end; a second time, to end at once. May be called on any thread."""
        self.assembly.mailbox.post(StopRequested())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT while the relay runs, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._manager.stopping(self.settings.relay.shutdown_timeout_seconds)
            self.stop()

        former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, former_action in former.items():
                signal.signal(number, former_action)

    def _on_turn(self, relay: Relay) -> None:
        self.board.look(relay)
        if not self._ready and relay.has_fetched and self._broker_answered.is_set():
            self._ready = True
            self._manager.ready()
        if self._manager.is_listening:
            self._manager.advanced(relay.turns, self.board.sentence)

    def _keep_contact(self) -> None:
        """Ask a broker for its metadata now and then, so that the status tells the truth while nothing is sent."""
        while not self._stopping.is_set():
            try:
                self.assembly.publisher.contact(CONTACT_SECONDS)
            except KafkaException as error:
                self.board.kafka_answers(False, str(error.args[0]))
                self._stopping.wait(1.0)
                continue
            self.board.kafka_answers(True)
            self._broker_answered.set()
            self._stopping.wait(CONTACT_PAUSE_SECONDS)

    def _conclude(self, end: RelayEnd) -> int:
        if end.reason == "blocked":
            print(f"topics behind an open breaker: {', '.join(end.blocked_topics)}", file=sys.stderr)  # noqa: T201 - for people
            return EXIT_UNAVAILABLE
        if end.reason == "empty":
            self._tell_pending()
        return EXIT_OK

    def _tell_pending(self) -> None:
        """List on standard error what is still pending on purpose: paused, held, or not yet available."""
        with explained():
            lines = describe_pending(
                self.settings.database.url_with_password,
                self.settings.database.schema_,
                self.settings.outbox.table,
                self.settings.outbox.name,
            )
        for line in lines:
            print(line, file=sys.stderr)  # noqa: T201 - for people


def _tune_interpreter() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run_daemon(settings: Settings, *, until_empty: bool = False) -> int:
    """Run one daemon in this process and return its exit code."""
    return Daemon(settings, until_empty=until_empty).run()
