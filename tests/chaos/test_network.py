"""A network that cuts, delays, swallows and half-closes, on either side of the daemon."""

from __future__ import annotations

import threading
import time

import pytest

from tests.chaos.conftest import MakeRig
from tests.chaos.lengths import CLUSTER, HEALED_SECONDS, IN_FLIGHT_ROWS, IS_LONG, PROXY_ROUNDS, RELAY, TTL_SECONDS
from tests.chaos.load import Load
from tests.support.kafka import KafkaCluster
from tests.support.proxy import Fault, TcpProxy
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(600)

FAULT_SECONDS = 5.0 if IS_LONG else 1.0


def trouble(proxy: TcpProxy, name: str) -> None:
    """Do one thing to the connections, and undo it after its time."""
    match name:
        case "cut":
            proxy.cut()
            return
        case "half-close":
            proxy.half_close()
            threading.Event().wait(FAULT_SECONDS)
            proxy.cut()
            return
        case "delay":
            proxy.delay(300)
        case "slow":
            proxy.limit(20_000)
        case _:
            proxy.set(Fault(name))
    threading.Event().wait(FAULT_SECONDS)
    proxy.heal()


TROUBLES = ["cut", "half-close", "delay", "slow", *(fault.value for fault in Fault if fault is not Fault.PASS)]


def wait_until_it_flows(rig: Rig, load: Load) -> None:
    healed_at = time.monotonic()
    published = rig.count("SELECT count(published_at) FROM outboxd.outbox")
    load.wait_for_rows(50)
    rig.wait_until("SELECT count(published_at) > %s FROM outboxd.outbox", published, timeout_seconds=HEALED_SECONDS)
    assert time.monotonic() - healed_at < HEALED_SECONDS


def test_every_trouble_on_the_way_to_kafka_costs_no_row_and_no_order(
    make_rig: MakeRig, kafka_proxied: KafkaCluster
) -> None:
    # Time-outs shorter than the client's minute: what is swallowed is noticed within the test.
    rig = make_rig(kafka_proxied, {"bootstrap.servers": kafka_proxied.bootstrap, "socket.timeout.ms": "2000"})
    proxy = kafka_proxied.proxies[0]
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    try:
        with Load(rig, topics) as load:
            for _ in range(PROXY_ROUNDS):
                for name in TROUBLES:
                    load.wait_for_rows(100)
                    trouble(proxy, name)
                    wait_until_it_flows(rig, load)
    finally:
        proxy.heal()
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds()


def test_every_trouble_on_the_way_to_postgresql_costs_no_row_and_no_order(
    rig: Rig, proxied_postgres: tuple[TcpProxy, str]
) -> None:
    proxy, url = proxied_postgres
    rig.database_url = url
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    troubles = 0
    with Load(rig, topics) as load:
        for _ in range(PROXY_ROUNDS):
            for name in TROUBLES:
                load.wait_for_rows(100)
                trouble(proxy, name)
                troubles += 1
                wait_until_it_flows(rig, load)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=troubles * IN_FLIGHT_ROWS)


def test_an_owner_that_cannot_reach_postgresql_stops_by_itself_and_its_standby_goes_on(
    rig: Rig, proxied_postgres: tuple[TcpProxy, str]
) -> None:
    proxy, url = proxied_postgres
    topic = rig.topic()
    cut_off = rig.daemon(relay=RELAY, cluster=CLUSTER, database={"url": url})
    standby = rig.daemon(relay=RELAY, cluster=CLUSTER)
    cut_off.start()
    cut_off.wait_for_event("owner")
    standby.start()
    with Load(rig, [topic]) as load:
        load.wait_for_rows(500)
        proxy.set(Fault.BLACK_HOLE)
        standby.wait_for_event("owner", timeout_seconds=TTL_SECONDS + 10)
        assert cut_off.wait_for_event("lease_lost")
        load.wait_for_rows(500)
        proxy.heal()
        load.wait_for_rows(500)
    rig.wait_until_settled()
    for daemon in (cut_off, standby):
        assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_ROWS)
