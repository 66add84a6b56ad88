"""A producer that is fenced at the broker: a new one is taken, nothing is lost or blamed, keys keep their order."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from confluent_kafka import Producer

from outboxd.kafka.transactional.progress import transactional_id
from outboxd.policy.blame.fencings import RIVAL_SECONDS
from tests.support.children import wait_for
from tests.support.rig import Rig
from tests.support.rows import value

pytestmark = pytest.mark.timeout(120)
CLUSTER = {"lease_ttl": "2s"}


def test_a_fenced_producer_is_replaced_and_what_it_had_in_flight_goes_again_in_order(rig: Rig) -> None:
    """No rival can fence this producer, so the answer is put in between: its records are in the log all the same."""
    topics = [rig.topic(partitions=3) for _ in range(2)]
    rig.insert_many(topics, 6_000, keys=100)
    daemon = rig.daemon(cluster=CLUSTER, relay={"max_in_flight_rows": 1_000, "batch_rows": 500})
    daemon.module = "tests.support.faulty_daemon"

    ended = daemon.run("--until-empty", "--fences", "3", timeout_seconds=60)

    assert ended.code == 0, ended.err
    rebuilt = daemon.events("producer_rebuilt")
    assert [event["error_code"] for event in rebuilt] == ["_FENCED"] * 3
    assert all(event["unknown_rows"] > 0 for event in rebuilt)
    assert all("Look for a second daemon on this outbox." in event["cause"] for event in rebuilt)
    assert rig.dead_letters() == {}
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    # Each time all that was in flight may have been there already.
    rig.check().assert_holds(duplicates_max=3_000)


def test_a_rival_with_the_same_transactional_id_costs_exactly_once_no_row_and_makes_none_twice(rig: Rig) -> None:
    topics = [rig.topic(partitions=3) for _ in range(2)]
    daemon = rig.daemon(cluster=CLUSTER, relay={"delivery": "exactly-once", "batch_rows": 500})
    daemon.start()
    daemon.wait_for_event("recovered")
    name = transactional_id(value(rig.sql, "SELECT current_database()"), "outboxd", "default")

    rig.insert_many(topics, 20_000, keys=100)
    rig.wait_until("SELECT count(published_at) > 500 FROM outboxd.outbox")
    # Once: where a transaction is open the brokers let its producer try twice, and both fence.
    rival = Producer({"bootstrap.servers": rig.kafka.bootstrap, "transactional.id": name})
    rival.init_transactions(30)
    # All else may be through by now, and an idle producer does not hear of it.
    rig.insert(topics[0])
    daemon.wait_for_event("producer_rebuilt")
    rig.wait_until_settled()

    fencings = daemon.events("producer_rebuilt")
    assert {event["error_code"] for event in fencings} <= {"_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"}
    first, last = (datetime.fromisoformat(str(fencings[place]["timestamp"])) for place in (0, -1))
    assert (last - first).total_seconds() < RIVAL_SECONDS, "one rival is to count once"
    assert daemon.events("lease_lost") == []
    assert daemon.stop().code == 0
    assert rig.dead_letters() == {}
    verdict = rig.check()
    verdict.assert_holds()
    assert (verdict.delivered, verdict.duplicates) == (20_001, 0)


def test_a_rival_that_takes_the_transactional_id_again_and_again_ends_the_daemon_with_75_and_a_sentence(
    rig: Rig,
) -> None:
    """As a daemon does on another database of the same name, whose brokers are the same."""
    topic = rig.topic()
    daemon = rig.daemon(cluster=CLUSTER, relay={"delivery": "exactly-once"})
    daemon.start()
    name = transactional_id(value(rig.sql, "SELECT current_database()"), "outboxd", "default")
    daemon.wait_for_event("recovered")
    until = time.monotonic() + 2 * RIVAL_SECONDS + 40
    while time.monotonic() < until:
        recovered = len(daemon.events("recovered"))
        rival = Producer({"bootstrap.servers": rig.kafka.bootstrap, "transactional.id": name})
        rival.init_transactions(30)
        rig.insert(topic)
        wait_for(
            lambda before=recovered: not daemon.is_running or len(daemon.events("recovered")) > before,  # type: ignore[misc]
            timeout_seconds=40,
            what="the daemon recovers, or ends",
        )
        if not daemon.is_running:
            break

    ended = daemon.wait()

    assert ended.code == 75
    assert "another producer took this outbox's transactional.id 3 times" in ended.err
    assert "Traceback" not in ended.err
    assert rig.dead_letters() == {}
