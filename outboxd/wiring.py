"""Wiring: the only place where configuration and concrete classes meet."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from sqlalchemy import Engine

from outboxd.config import Settings
from outboxd.config.sections import RetrySettings
from outboxd.kafka.client_config import check_client, record_bytes_max
from outboxd.kafka.lone_transactions import LoneTransactions, TransactionTrialProcess
from outboxd.kafka.publisher import KafkaPublisher
from outboxd.kafka.transactional_publisher import TransactionalPublisher
from outboxd.kafka.trial import TrialProcess
from outboxd.mailbox import QueueMailbox
from outboxd.policy.messages import Event, Reconfigured, TransactionEnded
from outboxd.policy.routes import Confirm, RetryLimits, Route
from outboxd.postgres.engine import make_engine
from outboxd.postgres.leases import LeaseKeeper
from outboxd.postgres.ownership import Owner
from outboxd.postgres.starts import StartLog
from outboxd.postgres.store import PostgresStore
from outboxd.relay.careful import CarefulPublisher
from outboxd.relay.careful_transactions import CarefulTransactions
from outboxd.relay.ports import Observer, Publisher
from outboxd.relay.relay import Ports, Relay, RelayLimits

CONNECTIONS = 10
"""What one daemon may open: fetch, settle, lease, starts, wake-up, three jobs of housekeeping, two of the page."""
ROW_BYTES = 1024
"""What a row in flight takes beside its payload, key and headers, in the relay and in the client; measured."""

DecoratePublisher = Callable[[Publisher], Publisher]


class MonotonicClock:
    """The machine's clock that never goes back."""

    monotonic = staticmethod(time.monotonic)


def daemon_name() -> str:
    """Return `host:pid`, as the lease and the dead letters name this daemon."""
    return f"{socket.gethostname()}:{os.getpid()}"


def retry_limits(retry: RetrySettings) -> RetryLimits:
    """Return the limits that this section sets: the general one, or a route's with what it overrides."""
    return RetryLimits(
        retry.max_attempts, retry.backoff_initial_seconds, retry.backoff_max_seconds, retry.max_age_seconds
    )


def routes(settings: Settings) -> tuple[list[Route], Route]:
    """Return the routes in their order, and the one for topics that none of them matches."""
    chosen = []
    for route in settings.routes:
        limits = retry_limits(route.effective_retry(settings.retry))
        holds = route.on_dead_letter == "hold-key"
        chosen.append(Route(route.topic, Confirm(route.confirm), holds, limits))
    return chosen, Route(retry=retry_limits(settings.retry))


def relay_limits(settings: Settings) -> RelayLimits:
    """Return the relay's bounds."""
    relay = settings.relay
    return RelayLimits(
        batch_rows=relay.batch_rows,
        batch_bytes=relay.batch_bytes,
        max_in_flight_rows=relay.max_in_flight_rows,
        max_in_flight_bytes=relay.max_in_flight_bytes,
        row_bytes=ROW_BYTES,
        poll_interval_min_seconds=relay.poll_interval_min_seconds,
        poll_interval_max_seconds=relay.poll_interval_max_seconds,
        sweep_interval_seconds=relay.sweep_interval_seconds,
        shutdown_timeout_seconds=relay.shutdown_timeout_seconds,
    )


def engine_for(settings: Settings, *, password: Callable[[], str] | None = None, prepares: bool = True) -> Engine:
    """Return the daemon's engine. Lock waits and idle transactions end well within the lease's ttl.

    `password` is asked for each new connection; without it the configured one is used for all.
    """
    database = settings.database
    bound_seconds = max(0.5, settings.cluster.lease_ttl_seconds / 3)
    return make_engine(
        database.url,
        password or database.password,
        lock_timeout_seconds=bound_seconds,
        idle_in_transaction_timeout_seconds=bound_seconds,
        prepare_threshold=5 if prepares else None,
        pool_size=CONNECTIONS,
    )


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
        """Take another configuration while the relay runs, see `outboxd.reload`. May be called on any thread."""
        limits = relay_limits(settings)
        self.password.value = settings.database.password
        self.publisher.take_properties(
            settings.kafka.properties,
            in_flight_rows_max=limits.max_in_flight_rows,
            in_flight_bytes_max=limits.max_in_flight_bytes,
        )
        self.trial.take_properties(settings.kafka.properties)
        self.mailbox.post(Reconfigured(limits, *routes(settings), renews=renews))

    def close(self) -> None:
        """End what was started: the lease is given up, threads end, connections close."""
        self.lease.close()
        self.trial.close()
        self.starts.close()
        self.store.close()
        self.publisher.close()
        self.engine.dispose()


def _publisher(
    settings: Settings, mailbox: QueueMailbox, observer: Observer
) -> KafkaPublisher | TransactionalPublisher:
    outbox, schema = settings.outbox.name, settings.database.schema_

    def on_lost(topic: str, partition: int, records: int) -> None:
        observer.event("acknowledged_records_lost", topic=topic, partition=partition, count=records)

    if settings.relay.delivery == "exactly-once":
        return TransactionalPublisher(
            settings.kafka.properties,
            mailbox.post,
            source=outbox,
            schema=schema,
            on_lost=on_lost,
        )
    return KafkaPublisher(
        settings.kafka.properties,
        source=outbox,
        in_flight_rows_max=settings.relay.max_in_flight_rows,
        in_flight_bytes_max=settings.relay.max_in_flight_bytes,
        on_lost=on_lost,
    )


def assemble(
    settings: Settings,
    observer: Observer,
    *,
    until_empty: bool = False,
    decorate_publisher: DecoratePublisher | None = None,
    trace_publisher: DecoratePublisher | None = None,
) -> Assembly:
    """Make one daemon's parts.

    Args:
        settings: the effective configuration.
        observer: who watches the relay.
        until_empty: the relay ends when nothing is left to do.
        decorate_publisher: wraps the broker's port, to watch it or to try faults on it; the port of the process that
            tries suspects of a crash too, to which it travels by pickling.
        trace_publisher: wraps it once more, in this process alone.
    """
    check_client(settings.kafka.properties)
    password = PresentPassword(settings.database.password)
    engine = engine_for(settings, password=password)
    mailbox = QueueMailbox()
    name = daemon_name()
    schema, outbox = settings.database.schema_, settings.outbox.name
    properties = settings.kafka.properties
    publisher = _publisher(settings, mailbox, observer)
    store = PostgresStore(
        engine,
        mailbox.post,
        schema=schema,
        table=settings.outbox.table,
        outbox=outbox,
        daemon=name,
        deletes=settings.relay.after_publish == "delete",
        record_bytes_max=record_bytes_max(properties),
        record_type=publisher.inbox.record_type,
        lease_ttl_seconds=settings.cluster.lease_ttl_seconds,
    )
    starts = StartLog(engine, schema, outbox, name)

    def on_owner(owner: Owner) -> None:
        store.set_owner(owner)
        if isinstance(publisher, TransactionalPublisher):
            publisher.name_after(lease.database)
        if isinstance(trial, TransactionTrialProcess):
            trial.name_after(lease.database)
        starts.owned()

    lease = LeaseKeeper(
        engine,
        mailbox.post,
        on_owner,
        schema=schema,
        outbox=outbox,
        daemon=name,
        ttl_seconds=settings.cluster.lease_ttl_seconds,
        relayed_table=settings.outbox.table,
        listening=settings.relay.listen,
        deletes_published=settings.relay.after_publish == "delete",
        exactly_once=settings.relay.delivery == "exactly-once",
    )
    port: Publisher = publisher if decorate_publisher is None else decorate_publisher(publisher)
    port = port if trace_publisher is None else trace_publisher(port)
    rows_max = settings.relay.max_in_flight_rows
    # Each report of a suspect lets the next one go, so the relay does not rest meanwhile.
    wake = partial(mailbox.post, TransactionEnded())
    trial: TrialProcess
    if isinstance(publisher, TransactionalPublisher):
        made = partial(lone_transactions, source=outbox, schema=schema, decorate=decorate_publisher)
        trial = transaction_trial = TransactionTrialProcess(made, properties, observer.event, wake)
        port = CarefulTransactions(port, starts, transaction_trial, MonotonicClock(), observer.event, rows_max=rows_max)
    else:
        lone = partial(lone_publisher, source=outbox, decorate=decorate_publisher)
        trial = TrialProcess(lone, properties, observer.event, wake)
        port = CarefulPublisher(port, starts, trial, MonotonicClock(), observer.event, rows_max=rows_max)
    # Jitter needs no secrecy.
    dice = random.Random()  # noqa: S311
    ports = Ports(store, port, lease, mailbox, MonotonicClock(), dice, observer)
    chosen, default = routes(settings)
    pipelined = settings.relay.delivery == "exactly-once"
    relay = Relay(ports, relay_limits(settings), chosen, default, until_empty=until_empty, pipelined=pipelined)
    return Assembly(settings, engine, password, mailbox, store, publisher, lease, relay, starts, trial)


def lone_publisher(properties: Mapping[str, str], *, source: str, decorate: DecoratePublisher | None) -> Publisher:
    """Return the broker's port of a process that tries suspects of a crash; called in that process."""
    publisher = KafkaPublisher(properties, source=source, in_flight_rows_max=1, in_flight_bytes_max=0)
    return publisher if decorate is None else decorate(publisher)


def lone_transactions(
    properties: Mapping[str, str],
    *,
    source: str,
    schema: str,
    decorate: DecoratePublisher | None,
    database: str,
    settled: int,
    lineage: str,
) -> LoneTransactions:
    """Return what sends suspects of a crash with exactly-once delivery; called in a process of its own."""
    events: SimpleQueue[Event] = SimpleQueue()
    publisher = TransactionalPublisher(properties, events.put, source=source, schema=schema)
    publisher.name_after(database)
    return LoneTransactions(
        publisher if decorate is None else decorate(publisher), events, settled=settled, lineage=lineage
    )
