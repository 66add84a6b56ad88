"""The daemon: one relay from start to end, under a service manager or by hand. Its states are in the package's map."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from outboxd.config import Settings
from outboxd.daemon.assembly import Assembly
from outboxd.daemon.conclusion import conclude
from outboxd.daemon.database_watch import DatabaseWatch
from outboxd.daemon.reload import compare
from outboxd.daemon.rivals import RivalObserver, Rivals
from outboxd.daemon.service_manager import ServiceManager
from outboxd.daemon.signals import Signals, ignore_signals
from outboxd.daemon.surroundings import Surroundings
from outboxd.daemon.thread_deaths import ThreadDeaths
from outboxd.daemon.wiring import DecoratePublisher, assemble, daemon_name
from outboxd.errors import BugError, OutboxdError, threads_error
from outboxd.kafka.client.client_config import check_client
from outboxd.kafka.client.client_files import contents
from outboxd.maintenance.alerts import Alerts
from outboxd.observability.logs import Log, open_log
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import StatusBoard
from outboxd.observability.tracing import Tracing, open_tracing
from outboxd.policy.exchange.messages import StopRequested
from outboxd.postgres.checks.grants import check_grants
from outboxd.postgres.checks.inspection import check_table
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.lease.lease_obstacles import check_exactly_once
from outboxd.postgres.schema.revisions import check_schema
from outboxd.relay.relay import Relay, RelayEnd

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits; a report's round trip hangs on it."""
GC_THRESHOLDS = (200_000, 50, 50)
"""Thousands of short-lived tuples a batch are no reason to look for cycles."""
CLOSING_SECONDS = 15.0
"""What ending takes after the relay's own `shutdown_timeout`, whatever stands still."""
ANSWER_SECONDS, FORCED_ANSWER_SECONDS = 5.0, 1.0
"""So long the end waits for a database that does not answer, once for its note and once for all threads; and where it
was asked for a second time.
"""
RELAY_THREAD = "relay"


class Daemon:
    """Owns one assembly for its life."""

    def __init__(
        self,
        settings: Settings,
        *,
        until_empty: bool = False,
        log: Log | None = None,
        decorate_publisher: DecoratePublisher | None = None,
        load_again: Callable[[], Settings] | None = None,
    ) -> None:
        """Make all parts; nothing is connected yet.

        Args:
            settings: the effective configuration.
            until_empty: end when nothing is left to relay.
            log: where events go; None opens the configured one.
            decorate_publisher: wraps the broker's port, see `assemble`.
            load_again: reads the configuration anew, for a reload; None: SIGHUP is ignored.
        """
        self.settings = settings
        self.log = log or open_log(settings.log.level, settings.log.format)
        self.log.hide(_secrets(settings))
        self._until_empty = until_empty
        self._answer_seconds = ANSWER_SECONDS
        self.board = StatusBoard(outbox=settings.outbox.name, daemon=daemon_name())
        self.metrics = Metrics(self.board, dropped_lines=lambda: self.log.dropped)
        about = {"outbox": settings.outbox.name, "daemon": daemon_name()}
        alerts = Alerts(settings.alerts.command, self.log.event, about=about)
        is_transactional = settings.relay.is_exactly_once
        self._rivals = Rivals(settings.outbox.name, is_transactional=is_transactional, stop=self.stop)
        self.observer = RivalObserver(self.log, self.metrics, self.board, alerts.offer, self._rivals)
        self._tracing = self._open_tracing()
        self.observer.tracing = self._tracing
        self.assembly: Assembly = assemble(
            settings,
            self.observer,
            until_empty=until_empty,
            decorate_publisher=decorate_publisher,
            trace_publisher=None if self._tracing is None else self._tracing.traced,
        )
        self.surroundings = Surroundings(self.assembly, self.observer, alerts, self.board, self.metrics)
        self._database_watch = DatabaseWatch(
            self.board,
            self.observer.event,
            lambda: self.assembly.lease.last_error,
            lambda: self.assembly.starts.failure,
            self.assembly.waits_for_database(),
        )
        self._load_again = load_again
        self._files = contents(settings.kafka.properties)
        self._signals = Signals(self.stop, self.reload)
        self._manager = ServiceManager(
            watched={**self.assembly.watched(), "broker-contact": self.surroundings.contact.under_way.seconds}
        )
        self._deaths = ThreadDeaths(self.observer.event, needed=self._manager.watched, stop=self.stop)

    def _open_tracing(self) -> Tracing | None:
        """Traces are a matter beside: where they cannot be had, the daemon says so and relays."""
        try:
            return open_tracing(self.settings.outbox.name, os.environ)
        except ImportError as error:
            self.observer.event(
                "tracing_unavailable", cause=f"{error}; install outboxd with its extra: pip install 'outboxd[otel]'"
            )
        except Exception as error:  # noqa: BLE001 - whatever the SDK makes of its variables
            self.observer.event("tracing_unavailable", cause=f"{type(error).__name__}: {error}")
        return None

    # Its life.

    def check(self) -> None:
        """Refuse to start where the schema or the table is missing or old, a grant is missing, or PostgreSQL does not
        answer.
        """
        with explained(), self.assembly.engine.connect() as connection:
            check_schema(connection, self.settings.database.schema_)
            check_grants(connection, self.settings.database.schema_, self.settings.outbox.table)
            check_table(connection, self.settings.database.schema_, self.settings.outbox.table)
            if self.settings.relay.is_exactly_once:
                driver: Any = connection.connection.driver_connection
                check_exactly_once(driver, self.settings.database.schema_, self.settings.outbox.name)

    def run(self) -> int:
        """Relay until stopped, or until nothing is left; return the exit code.

        Raises:
            FencedError: rivals took the lease again and again.
            SchemaError, DatabaseUnavailableError, AccessDeniedError: it cannot start.
            ThreadsError: no thread can be started.
            BugError: a thread that the relay cannot do without has died.
        """
        # To the very end: a second signal while all is being closed finds a daemon that is on its way out already.
        with self._signals.taken(), self._deaths.told():
            try:
                return self._conclude(self._relay())
            finally:
                self.log.close()

    def _relay(self) -> RelayEnd:
        try:
            self.check()
            _tune_interpreter()
            self.assembly.relay.on_turn = self._on_turn
            self.surroundings.start()
            self.assembly.lease.start()
            end = self.assembly.relay.run()
            self.assembly.lease.acquire_no_more()
            if end.is_forced:
                self._answer_seconds = FORCED_ANSWER_SECONDS
            self._note_clean_end()
        except OutboxdError:
            raise
        except Exception as error:
            if (ours := threads_error(error)) is not None:
                raise ours from error
            self._deaths.tell(RELAY_THREAD, error)
            raise
        finally:
            self._close()
        return end

    def stop(self) -> None:
        """Ask the relay to drain and end; a second time, to end at once. May be called on any thread."""
        self.assembly.mailbox.post(StopRequested())

    def _note_clean_end(self) -> None:
        """The next owner believes it a crash where this fails, and is careful; this one ended well all the same."""
        try:
            self.assembly.starts.ended(self._answer_seconds)
        except OutboxdError as error:
            self.observer.event("database_failed", during="the note of the end", cause=str(error))

    def _close(self) -> None:
        self._manager.stopping(CLOSING_SECONDS)
        self._signals.end_hangups()
        self.surroundings.close()
        self.assembly.close(self._answer_seconds)
        if self._tracing is not None:
            self._tracing.close()

    # What the service manager is told, on the relay's thread.

    def _on_turn(self, relay: Relay) -> None:
        if self.board.look(relay):
            self.surroundings.jobs.follow_clock()
            self.surroundings.look(relay)
            self._database_watch.look(is_owner=relay.state.token is not None)
        manager = self._manager
        if not manager.is_ready and self._is_ready(relay):
            self.board.look(relay, at_once=True)
            manager.ready(self.board.sentence())
            if relay.state.token is None:
                # Without it a second daemon would say nothing at all, for as long as it waits.
                self.observer.event("standing_by")
        if relay.is_stopping and not manager.is_stopping:
            manager.stopping(self.settings.relay.shutdown_timeout_seconds + CLOSING_SECONDS)
        manager.advanced(relay.turns, self.board.sentence)

    def _is_ready(self, relay: Relay) -> bool:
        """It relays; or another daemon does, and this one knows it."""
        is_standby = relay.state.token is None and self.assembly.lease.has_rival
        return (relay.has_fetched or is_standby) and self.surroundings.contact.has_answered

    # Reload, on a thread of its own: reading files may take its time.

    def reload(self) -> None:
        """Read the configuration again and take what a running daemon can; keep the present one where it is bad."""
        if self._load_again is None or self._manager.is_stopping:
            return
        if self._manager.is_ready:
            self._manager.reloading()
        try:
            self._take(self._load_again())
            self.metrics.config_reload.set(1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next SIGHUP is taken all the same
            self.metrics.config_reload.set(0)
            cause = str(error) if isinstance(error, OutboxdError) else f"{type(error).__name__}: {error}"
            self.observer.event("config_reload_failed", cause=cause)
        finally:
            # A stop may have come meanwhile, after which the service manager is told of nothing else.
            if self._manager.is_ready and not self._manager.is_stopping:
                self._manager.ready(self.board.sentence())

    def _take(self, wanted: Settings) -> None:
        wanted.kafka.bootstrap_servers  # noqa: B018 - refuses to go on without brokers
        self.log.hide(_secrets(wanted))
        # What may be refused comes first: what is refused changes nothing.
        check_client(wanted.kafka.properties, is_transactional=self.settings.relay.is_exactly_once)
        files = contents(wanted.kafka.properties)
        rewritten = [name for name, content in files.items() if content != self._files.get(name)]
        reload = compare(self.settings, wanted, rewritten=rewritten)
        self.log.set_level(reload.settings.log.level)
        self.surroundings.reconfigure(reload.settings)
        if reload.taken:
            self.assembly.reconfigure(reload.settings, renews=reload.renews)
        # Last, so that a reload that fails is compared with what is in effect when it is tried again.
        self.settings, self._files = reload.settings, files
        self.observer.event("config_reloaded", changed=", ".join(reload.taken) or "nothing new")
        if reload.waiting:
            self.observer.event("config_needs_restart", changed=", ".join(reload.waiting))

    # Its end.

    def _conclude(self, end: RelayEnd) -> int:
        if self._deaths.fatal is not None:
            raise BugError(self._deaths.fatal)
        self._rivals.check()
        return conclude(end, self.settings, until_empty=self._until_empty)


def _secrets(settings: Settings) -> list[str]:
    """Return the values that no line of the log may show."""
    secrets = [*settings.database.secrets, settings.http.token]
    shown = settings.kafka.plain()
    return secrets + [value for name, value in settings.kafka.properties.items() if shown[name] != value]


def _tune_interpreter() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run_daemon(
    settings: Settings, *, until_empty: bool = False, load_again: Callable[[], Settings] | None = None
) -> int:
    """Run one daemon in this process and return its exit code; `load_again` reads the configuration for a reload."""
    daemon = Daemon(settings, until_empty=until_empty, load_again=load_again)
    daemon.log.take_libraries()
    code = daemon.run()
    # What is left is the interpreter's own end, which a late signal shall not make look like a crash.
    ignore_signals()
    return code
