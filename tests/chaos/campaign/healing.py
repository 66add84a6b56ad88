"""Puts right whatever a fault may have left behind."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection

import psycopg

from tests.chaos.campaign.stage import STRICT, Stage


def heal(stage: Stage, resources: Collection[str] | None = None) -> None:
    """Heal these; without `resources` everything, at a time when no fault happens."""
    for resource, mend in _MENDERS.items():
        if resources is None or resource in resources:
            mend(stage)


def _heal_kafka_net(stage: Stage) -> None:
    for proxy in stage.brokers.proxies:
        proxy.heal()


def _heal_postgres_net(stage: Stage) -> None:
    for proxy in stage.postgres.proxies:
        proxy.heal()


def _heal_brokers(stage: Stage) -> None:
    for broker in range(3):
        with contextlib.suppress(ProcessLookupError):
            stage.brokers.resume(broker)
    stage.brokers.bring_back(0, 1, 2)


def _heal_daemons(stage: Stage) -> None:
    for daemon in stage.pair.daemons[:2]:
        daemon.unread.clear()
        if daemon.is_running:
            daemon.signal(signal.SIGCONT)
        daemon.held = False


def _heal_postgres(stage: Stage) -> None:
    postgres = stage.postgres
    for node in postgres.nodes:
        node.disk.empty()
        if node.is_running:
            node.signal(signal.SIGCONT)
    if not postgres.primary.is_running:
        postgres.keeper.do(postgres.primary.start)
    if postgres.has_standby:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.Error):
                if postgres.is_guarded():
                    return
            time.sleep(0.2)
        postgres.attach_standby()


def _heal_rows(stage: Stage) -> None:
    with stage.postgres.patient() as connection:
        connection.execute("SELECT outboxd.resume(topic_pattern) FROM outboxd.control")
        for (name,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            connection.execute(f"COMMIT PREPARED '{name}'")
    stage.brokers.alter_topic_config(STRICT, {"min.insync.replicas": "2"})


_MENDERS: dict[str, Callable[[Stage], None]] = {
    "kafka-net": _heal_kafka_net,
    "postgres-net": _heal_postgres_net,
    "postgres": _heal_postgres,
    "brokers": _heal_brokers,
    "daemons": _heal_daemons,
    "rows": _heal_rows,
}
