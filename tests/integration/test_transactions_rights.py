"""Exactly once with the rights that the documents name: they are enough, and a topic without its own waits alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import started
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(180)

USER, STRANGER = "relay", "stranger"


@pytest.fixture(scope="module")
def guarded_kafka() -> Iterator[KafkaCluster]:
    """A broker that denies what no grant allows."""
    yield from started(lambda: KafkaCluster(brokers=1, sasl=True, plain_users={USER: "s3cret", STRANGER: "0ther"}))


@pytest.fixture
def guarded(database: Database, guarded_kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig whose daemons may begin transactions and keep their progress, and nothing else yet."""
    rig = Rig(database, guarded_kafka, tmp_path, kafka_properties=guarded_kafka.client_config(USER))
    progress = f"outboxd-progress-{database.name}-outboxd-default"
    guarded_kafka.create_topic(progress, partitions=1, config={"cleanup.policy": "compact"})
    for operation in (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE):
        guarded_kafka.grant(USER, progress, operation)
    allow_transactions(guarded_kafka, USER)
    try:
        yield rig
    finally:
        rig.close()


def allow_transactions(kafka: KafkaCluster, user: str) -> None:
    """Let the user begin transactions of outboxd."""
    bindings = [
        AclBinding(
            ResourceType.TRANSACTIONAL_ID, "outboxd-", ResourcePatternType.PREFIXED, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE)
    ]  # fmt: skip
    for granted in kafka.admin.create_acls(bindings).values():
        granted.result(20)


def topic_of(rig: Rig) -> str:
    """A topic that the daemons may write to."""
    topic = rig.topic()
    for operation in (AclOperation.WRITE, AclOperation.DESCRIBE):
        rig.kafka.grant(USER, topic, operation)
    return topic


def daemon_of(rig: Rig) -> DaemonProcess:
    return rig.daemon(relay={"delivery": "exactly-once"}, cluster={"lease_ttl": "2s"})


def test_the_rights_that_the_documents_name_are_enough_for_every_start(guarded: Rig) -> None:
    topic = topic_of(guarded)
    for _ in range(3):
        guarded.insert_many([topic], 100, keys=10)
        daemon = daemon_of(guarded)
        assert daemon.run("--until-empty").code == 0, daemon.log_text[-2000:]
        assert daemon.events("recovery_failed") == []
    verdict = guarded.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


def test_a_topic_whose_grant_was_taken_back_waits_while_others_go(guarded: Rig) -> None:
    refused, allowed = topic_of(guarded), topic_of(guarded)
    daemon = daemon_of(guarded)
    daemon.start()
    guarded.insert_many([refused, allowed], 100, keys=10)
    guarded.wait_until_settled()

    guarded.kafka.revoke(USER, refused)
    guarded.insert_many([refused], 100, keys=10)
    opened = daemon.wait_for_event("breaker_opened", topic=refused)
    guarded.insert_many([refused, allowed], 100, keys=10)
    guarded.wait_until_settled(but=150)
    assert opened["error_code"] == "TOPIC_AUTHORIZATION_FAILED"
    assert daemon.events("producer_rebuilt") == []

    guarded.kafka.grant(USER, refused)
    guarded.wait_until_settled()
    assert daemon.stop().code == 0
    verdict = guarded.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


def test_a_recovery_that_is_refused_says_by_which_right(
    database: Database, guarded_kafka: KafkaCluster, tmp_path: Path
) -> None:
    rig = Rig(database, guarded_kafka, tmp_path, kafka_properties=guarded_kafka.client_config(STRANGER))
    progress = f"outboxd-progress-{database.name}-outboxd-default"
    daemon = daemon_of(rig)

    def causes(words: str) -> list[str]:
        return [event["cause"] for event in daemon.events("recovery_failed") if words in event["cause"]]

    def cause_with(words: str) -> str:
        wait_for(lambda: bool(causes(words)), timeout_seconds=40, what=words)
        return causes(words)[0]

    try:
        daemon.start()
        refused = cause_with("TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
        assert "Grant it WRITE and DESCRIBE on the transactional id" in refused
        looked = subprocess.run(
            [sys.executable, "-m", "outboxd", "check", "-c", str(daemon.config)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (looked.returncode, looked.stderr) == (77, "")
        assert "allow WRITE and DESCRIBE on the transactional id" in looked.stdout

        allow_transactions(guarded_kafka, STRANGER)
        unseen = cause_with(f"{progress} cannot be read: TOPIC_AUTHORIZATION_FAILED")
        assert "allow READ, WRITE and DESCRIBE" in unseen

        for operation in (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE):
            guarded_kafka.grant(STRANGER, progress, operation)
        missing = cause_with(f"the progress topic {progress} is not there, and cannot be made")
        assert "create it with one partition" in missing

        guarded_kafka.create_topic(progress, partitions=1, config={"cleanup.policy": "compact"})
        daemon.wait_for_event("recovered")
    finally:
        rig.close()
