"""Rows of few keys that go together while connections break, a right is revoked, or a topic is made again."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from tests.chaos.conftest import MakeRig
from tests.chaos.lengths import HEALED_SECONDS
from tests.support.chained import Chained
from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(240)

IN_FLIGHT_MAX = 50_000
CUTS = 4


def test_connections_that_are_cut_while_they_go_cost_no_row_and_no_order(
    make_rig: MakeRig, kafka_proxied: KafkaCluster
) -> None:
    rig = make_rig(kafka_proxied, {"bootstrap.servers": kafka_proxied.bootstrap})
    topic = rig.topic(partitions=2)
    chained = Chained(rig)
    chained.go(topic, 20_000, keys=2)
    for _ in range(CUTS):
        kafka_proxied.proxies[0].cut()
        before = chained.rows()
        rig.insert_many([topic], 10_000, keys=2)
        chained.wait_until_they_go(before)
    rig.wait_until_settled()
    assert chained.daemon.stop().code == 0
    assert rig.dead_letters() == {}
    # The client numbers what it sends: a broker that has it already does not write it again.
    rig.check().assert_holds()


def test_a_right_that_is_revoked_while_they_go_holds_the_topic_and_no_other(
    make_rig: MakeRig, kafka_guarded: KafkaCluster
) -> None:
    rig = make_rig(kafka_guarded, kafka_guarded.client_config("relay"))
    denied, allowed = rig.topic(partitions=2), rig.topic(partitions=2)
    for topic in (denied, allowed):
        kafka_guarded.grant("relay", topic)
        kafka_guarded.grant("relay", topic, AclOperation.DESCRIBE)
    chained = Chained(rig)
    chained.go(denied, 40_000, keys=2)
    kafka_guarded.revoke("relay", denied)
    chained.daemon.wait_for_event("breaker_opened", topic=denied)
    before = chained.rows()
    rig.insert_many([allowed], 5_000, keys=2)
    chained.wait_until_they_go(before)
    rig.wait_until("SELECT NOT EXISTS (SELECT FROM outboxd.outbox WHERE topic = %s AND published_at IS NULL)", allowed)
    assert rig.pending() > 0, "all was delivered before the right was revoked, which proves nothing"
    kafka_guarded.grant("relay", denied)
    chained.daemon.wait_for_event("breaker_closed", topic=denied, timeout_seconds=HEALED_SECONDS)
    rig.wait_until_settled()
    assert chained.daemon.stop().code == 0
    assert rig.dead_letters() == {}
    assert chained.daemon.events("chains_ended", topic=denied, error_code="TOPIC_AUTHORIZATION_FAILED")
    rig.check().assert_holds()


def test_a_topic_that_is_made_again_while_they_go_is_gone_on_with_and_they_go_together_still(rig: Rig) -> None:
    again, other = fresh_name("again"), rig.topic(partitions=2)
    rig.kafka.create_topic(again, partitions=2)
    chained = Chained(rig)
    chained.go(again, 60_000, keys=2)
    rig.kafka.delete_topic(again)
    assert rig.pending() > 0, "all was delivered before the topic was deleted, which proves nothing"
    rig.kafka.create_topic(again, partitions=2)
    before = chained.rows()
    rig.insert_many([again, other], 4_000, keys=2)
    chained.wait_until_they_go(before)
    rig.wait_until_settled(timeout_seconds=90)
    assert chained.daemon.stop().code == 0
    assert rig.dead_letters() == {}
    # What the topic had before went with it; of what it has now the order is looked at too.
    rig.topics.append(again)
    rig.check(lossy_topics=[again]).assert_holds(duplicates_max=IN_FLIGHT_MAX)


def test_what_is_in_flight_adds_up_while_they_go(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    chained = Chained(rig)
    chained.go(topic, 40_000, keys=2)
    seen: list[dict[str, Any]] = []

    def are_settled() -> bool:
        seen.append(chained.status())
        return rig.pending() == 0

    wait_for(are_settled, timeout_seconds=60, what="all is settled")
    assert any(status["in_flight_rows"] > 2 for status in seen)
    for status in seen:
        assert status["in_flight_rows"] == sum(status["in_flight_by_topic"].values())
        assert status["unsettled_rows"] == status["in_flight_rows"] + status["settling_rows"]
        assert status["unsettled_rows"] <= status["in_memory_rows"] <= IN_FLIGHT_MAX
        assert (status["held_keys"], status["held_records"]) == (0, 0)
    rig.check().assert_holds()
