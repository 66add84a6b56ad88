"""The assembly: the parts of one daemon, connected to each other, for as long as it lives.

`wiring` makes it. Here is what is done to all parts, or asked of them: another configuration, who is stuck, the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from outboxd.config import Settings
from outboxd.daemon.mailbox import QueueMailbox
from outboxd.daemon.relay_configuration import relay_limits, routes
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.trials.trial import TrialProcess
from outboxd.policy.exchange.messages import Reconfigured, TopicsChanged
from outboxd.postgres.lease.leases import LeaseKeeper
from outboxd.postgres.lease.starts import StartLog
from outboxd.postgres.store.store import PostgresStore
from outboxd.relay.relay import Relay


class PresentPassword:
    """The database's password, which a reload may change; new connections ask for it."""

    def __init__(self, value: str) -> None:
        """`value` is the configured one."""
        self.value = value

    def __call__(self) -> str:
        """Return the present one."""
        return self.value


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one daemon, made and connected to each other, not started."""

    settings: Settings
    engine: Engine
    password: PresentPassword
    mailbox: QueueMailbox
    store: PostgresStore
    publisher: KafkaPublisher | TransactionalPublisher
    lease: LeaseKeeper
    relay: Relay
    starts: StartLog
    trial: TrialProcess

    def waits_for_database(self) -> dict[str, Callable[[], float]]:
        """Return for each thread that asks the database for how many seconds it has waited for an answer."""
        return {
            "fetch": self.store.fetching.seconds,
            "settle": self.store.settling.seconds,
            "lease": self.lease.under_way.seconds,
            "starts": self.starts.under_way.seconds,
        }

    def watched(self) -> dict[str, Callable[[], float]]:
        """Return for each thread that may not be stuck for how long its job under way has not advanced, in seconds."""
        threads = self.waits_for_database()
        publisher = self.publisher
        if isinstance(publisher, TransactionalPublisher):
            threads["transactions"] = publisher.stuck_seconds
        return threads

    def reconfigure(self, settings: Settings, *, renews: bool) -> None:
        """Take another configuration while the relay runs, see `outboxd.daemon.reload`. May be called on any thread."""
        limits = relay_limits(settings)
        self.password.value = settings.database.password
        self.publisher.take_properties(
            settings.kafka.properties,
            in_flight_rows_max=limits.max_in_flight_rows,
            in_flight_bytes_max=limits.max_in_flight_bytes,
        )
        self.trial.take_properties(settings.kafka.properties, anew=renews)
        self.mailbox.post(Reconfigured(limits, *routes(settings), renews=renews))

    def renew_clients(self, reason: str) -> None:
        """Have the relay take a new producer, since the topics are not those that this one knows. May be called on any
        thread.
        """
        self.trial.take_properties(anew=True)
        self.mailbox.post(TopicsChanged(reason))

    def close(self, timeout_seconds: float) -> None:
        """End what was started: the lease is given up, threads end, connections close. Threads that take longer than
        this are left behind.
        """
        # A relay that ended by an error has its lease and its records still; the next owner sends newer ones.
        self.publisher.purge()
        closings = (self.lease.close, self.trial.close, self.starts.close, self.store.close)
        # All are told before any is waited for, since all may wait for one server that stands still.
        for close in closings:
            close(0.0)
        until = time.monotonic() + timeout_seconds
        for close in closings:
            close(max(0.0, until - time.monotonic()))
        self.publisher.close()
        self.engine.dispose()
