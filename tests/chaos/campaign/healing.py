"""Puts right whatever a fault may have left behind."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Collection

import psycopg

from tests.chaos.campaign.stage import STRICT, Stage

EVERYTHING = frozenset({"daemons", "brokers", "kafka-net", "postgres", "postgres-net", "rows"})


def heal(stage: Stage, resources: Collection[str] = EVERYTHING) -> None:
    """Heal these; without `resources` everything, at a time when no fault happens."""
    if "kafka-net" in resources:
        for proxy in stage.brokers.proxies:
            proxy.heal()
    if "postgres-net" in resources:
        for proxy in stage.postgres.proxies:
            proxy.heal()
    if "postgres" in resources:
        _heal_postgres(stage)
    if "brokers" in resources:
        for broker in range(3):
            with contextlib.suppress(ProcessLookupError):
                stage.brokers.resume(broker)
        stage.brokers.bring_back(0, 1, 2)
    if "daemons" in resources:
        for daemon in stage.pair.daemons[:2]:
            daemon.unread.clear()
            if daemon.is_running:
                daemon.signal(signal.SIGCONT)
            daemon.held = False
    if "rows" in resources:
        _heal_rows(stage)


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
