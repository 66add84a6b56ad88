"""Servers that stop, die and come back under load: nothing is lost, nothing dies, every key keeps its order."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.chaos.lengths import (
    CLUSTER,
    HEALED_SECONDS,
    IN_FLIGHT_ROWS,
    IS_LONG,
    OUTAGE_SECONDS,
    RELAY,
    TTL_SECONDS,
)
from tests.chaos.load import Load
from tests.support.kafka import KafkaCluster
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(300)


def keep_down(seconds: float) -> None:
    """The length of the outage is what is tested: time has to pass."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize("way", ["stopped", "killed", "frozen"] if IS_LONG else ["stopped"])
def test_a_broker_that_is_away_for_long_costs_no_row_no_duplicate_and_no_order(
    rig: Rig, kafka: KafkaCluster, way: str
) -> None:
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, topics) as load:
        load.wait_for_rows(1_000)
        rig.wait_until("SELECT count(published_at) > 500 FROM outboxd.outbox")
        try:
            match way:
                case "stopped":
                    kafka.stop_broker(0)
                case "killed":
                    kafka.kill(0)
                case _:
                    kafka.pause(0)
            keep_down(OUTAGE_SECONDS)
        finally:
            if way == "frozen":
                kafka.resume(0)
            else:
                kafka.start_broker(0)
        healed_at = time.monotonic()
        published = rig.count("SELECT count(published_at) FROM outboxd.outbox")
        rig.wait_until("SELECT count(published_at) > %s FROM outboxd.outbox", published, timeout_seconds=HEALED_SECONDS)
        resumed_after = time.monotonic() - healed_at
        load.wait_for_rows(200)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds()
    assert resumed_after < HEALED_SECONDS
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0


@pytest.mark.parametrize("mode", ["immediate", "fast"] if IS_LONG else ["immediate"])
def test_a_restart_of_postgresql_under_load_loses_nothing_and_keeps_the_order(rig: Rig, mode: str) -> None:
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    restarts = 2
    with Load(rig, topics) as load:
        for _ in range(restarts):
            load.wait_for_rows(1_000)
            rig.sql.close()
            rig.database.server.restart(mode)  # type: ignore[arg-type]  # of the two literals above
            rig.sql = rig.database.connect()
            healed_at = time.monotonic()
            published = rig.count("SELECT count(published_at) FROM outboxd.outbox")
            load.wait_for_rows(100)
            rig.wait_until(
                "SELECT count(published_at) > %s FROM outboxd.outbox", published, timeout_seconds=HEALED_SECONDS
            )
            assert time.monotonic() - healed_at < HEALED_SECONDS
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=restarts * IN_FLIGHT_ROWS)


def test_a_frozen_postgresql_is_waited_for(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, [topic]) as load:
        load.wait_for_rows(500)
        rig.database.server.signal(signal.SIGSTOP)
        try:
            # Longer than the lease: the daemon must stop by itself, since it cannot know who owns the outbox.
            keep_down(2 * TTL_SECONDS)
        finally:
            rig.database.server.signal(signal.SIGCONT)
        load.wait_for_rows(500)
    rig.wait_until_settled()
    assert daemon.events("lease_lost"), "trust in the lease should have run out"
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_ROWS)
