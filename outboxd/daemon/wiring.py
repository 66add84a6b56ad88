"""Wiring: makes the parts of one daemon's relay from the configuration, and puts them together.

What runs beside the relay is made in `surroundings`, and the demo and the benchmark make servers and clients of their
own. The rooms know neither the configuration nor, but through their ports, each other.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from outboxd.config import Settings
from outboxd.daemon.assembly import Assembly, PresentPassword
from outboxd.daemon.mailbox import QueueMailbox
from outboxd.daemon.relay_configuration import relay_limits, routes
from outboxd.kafka.client.client_config import check_client, record_bytes_max
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.trials.lone_transactions import TransactionTrialProcess
from outboxd.kafka.trials.publishers import lone_publisher, lone_transactions
from outboxd.kafka.trials.trial import TrialProcess
from outboxd.policy.exchange.messages import TransactionEnded
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.leases import LeaseKeeper
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.lease.starts import StartLog
from outboxd.postgres.store.store import PostgresStore
from outboxd.relay.ports import Observer, Publisher
from outboxd.relay.publish.careful import CarefulPublisher
from outboxd.relay.publish.careful_transactions import CarefulTransactions
from outboxd.relay.relay import Ports, Relay

CONNECTIONS = 11
"""What one daemon may open: fetch, settle, lease, starts, wake-up, four jobs of housekeeping (one copies dead letters),
two of the page.
"""

DecoratePublisher = Callable[[Publisher], Publisher]


class MonotonicClock:
    """The machine's clock that never goes back."""

    monotonic = staticmethod(time.monotonic)


def daemon_name() -> str:
    """Return `host:pid`, as the lease and the dead letters name this daemon."""
    return f"{socket.gethostname()}:{os.getpid()}"


def engine_for(settings: Settings, *, password: Callable[[], str] | None = None) -> Engine:
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
        prepare_threshold=5,
        pool_size=CONNECTIONS,
    )


def _publisher(
    settings: Settings, mailbox: QueueMailbox, observer: Observer
) -> KafkaPublisher | TransactionalPublisher:
    outbox, schema = settings.outbox.name, settings.database.schema_

    def on_lost(topic: str, partition: int, records: int) -> None:
        observer.event("acknowledged_records_lost", topic=topic, partition=partition, count=records)

    if settings.relay.is_exactly_once:
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
    check_client(settings.kafka.properties, is_transactional=settings.relay.is_exactly_once)
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
        exactly_once=settings.relay.is_exactly_once,
    )
    starts = StartLog(engine, schema, outbox, name)

    def on_owner(owner: Owner) -> None:
        store.set_owner(owner)
        if isinstance(publisher, TransactionalPublisher):
            publisher.name_after(lease.database)
        if isinstance(trial, TransactionTrialProcess):
            trial.name_after(lease.database)
        starts.owned(owner.holder)

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
        exactly_once=settings.relay.is_exactly_once,
    )
    port: Publisher = publisher if decorate_publisher is None else decorate_publisher(publisher)
    port = port if trace_publisher is None else trace_publisher(port)
    # Each report of a suspect lets the next one go, so the relay does not rest meanwhile.
    wake = partial(mailbox.post, TransactionEnded())
    trial, port = _careful(settings, port, starts, observer, wake=wake, decorate=decorate_publisher)
    # Jitter needs no secrecy.
    dice = random.Random()  # noqa: S311
    ports = Ports(store, port, lease, mailbox, MonotonicClock(), dice, observer)
    chosen, default = routes(settings)
    pipelined = settings.relay.is_exactly_once
    relay = Relay(ports, relay_limits(settings), chosen, default, until_empty=until_empty, pipelined=pipelined)
    return Assembly(settings, engine, password, mailbox, store, publisher, lease, relay, starts, trial)


def _careful(
    settings: Settings,
    port: Publisher,
    starts: StartLog,
    observer: Observer,
    *,
    wake: Callable[[], None],
    decorate: DecoratePublisher | None,
) -> tuple[TrialProcess, Publisher]:
    """Return what tries suspects of a crash, and the broker's port that gives them to it after an unclean end."""
    outbox, schema = settings.outbox.name, settings.database.schema_
    properties, rows_max = settings.kafka.properties, settings.relay.max_in_flight_rows
    clock, event = MonotonicClock(), observer.event
    if settings.relay.is_exactly_once:
        made = partial(lone_transactions, source=outbox, schema=schema, decorate=decorate)
        transaction_trial = TransactionTrialProcess(made, properties, event, wake)
        return transaction_trial, CarefulTransactions(port, starts, transaction_trial, clock, event, rows_max=rows_max)
    lone = partial(lone_publisher, source=outbox, decorate=decorate)
    trial = TrialProcess(lone, properties, event, wake)
    return trial, CarefulPublisher(port, starts, trial, clock, event, rows_max=rows_max)
