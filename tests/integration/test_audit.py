"""Published rows held against the log: an election that loses acknowledged records is seen, named and mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.operators.published import PublishedRows
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import value
from tests.support.shell import Shell, shell_on

LOSSY = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}


@pytest.fixture
def three(database: Database, kafka_three: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    """A rig on three brokers."""
    made = Rig(database, kafka_three, tmp_path)
    try:
        yield made
    finally:
        made.close()


def shell_of(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell that reaches both servers of the rig."""
    environ = {"OUTBOXD_KAFKA__BOOTSTRAP_SERVERS": rig.kafka.bootstrap}
    return shell_on(rig.database, monkeypatch, capsys, **environ)


def lost_rows(rig: Rig, topic: str) -> list[int]:
    """Rows that are marked as published and whose records are nowhere, as a consumer sees it."""
    there = {id_of(record) for record in rig.kafka.consume(topic)}
    published: list[int] = value(
        rig.sql, "SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM outboxd.outbox WHERE published_at IS NOT NULL"
    )
    return [row_id for row_id in published if row_id not in there]


def in_sync(rig: Rig, topic: str) -> set[int]:
    try:
        return set(rig.kafka.admin.list_topics(topic, timeout=3).topics[topic].partitions[0].isrs)
    except KafkaException:
        # The client asks the broker that died, perhaps, and takes another one next.
        return set()


def elect_an_outdated_leader(rig: Rig, topic: str) -> int:
    """Rows are acknowledged by one broker alone, which dies; the one that lacks them leads. Returns the dead one."""
    kafka = rig.kafka
    leader = kafka.leaders(topic)[0]
    found = kafka.admin.list_topics(topic, timeout=10).topics[topic].partitions[0]
    (follower,) = set(found.replicas) - {leader}
    kafka.kill(follower)
    wait_for(lambda: in_sync(rig, topic) == {leader}, timeout_seconds=40, what="the follower is out of sync")
    # Keys that no other row has, so that none of them has newer records later; one of them has.
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload)"
        " SELECT %s, 'lost-' || i, convert_to(i::text, 'UTF8') FROM generate_series(1, 300) AS i",
        (topic,),
    )
    rig.wait_until_settled()
    kafka.kill(leader)
    kafka.start_broker(follower)
    wait_for(lambda: kafka.leaders(topic).get(0) == follower, timeout_seconds=30, what="the outdated replica leads")
    return leader


def test_an_unclean_election_raises_the_alarm_and_the_audit_names_and_mends_exactly_the_lost_rows(
    three: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, topic = three, fresh_name("lossy")
    rig.kafka.create_topic(topic, partitions=1, replication=2, config=LOSSY)
    shell = shell_of(rig, monkeypatch, capsys)
    daemon = rig.daemon()
    daemon.start()
    rig.insert_many([topic], 300, keys=50)
    rig.wait_until_settled()
    assert shell.ok("audit", "--json").document["fine"] == 300

    dead = elect_an_outdated_leader(rig, topic)
    try:
        # The daemon goes on: its next record shows that the log went back. One key of a lost row gets a newer record.
        newer = rig.insert(topic, "lost-7", b"newer")
        rig.insert_many([topic], 50, keys=10)
        alarm = daemon.wait_for_event("acknowledged_records_lost", topic=topic, timeout_seconds=60)
        rig.wait_until_settled()
        assert daemon.stop().code == 0

        expected = lost_rows(rig, topic)
        assert len(expected) == 300
        assert alarm["partition"] == 0
        # A lower bound: what was written anew by then may be what was there before.
        assert 300 - 51 <= alarm["count"] <= 300

        found = shell("audit", "--json")
        assert found.code == 69
        assert found.document["fine"] + found.document["elsewhere"] == 351
        assert [row["id"] for row in found.document["lost_rows"]] == expected
        (overtaken,) = [row for row in found.document["lost_rows"] if row["newer_id"] is not None]
        assert (overtaken["key"], overtaken["newer_id"]) == ("lost-7", newer)

        marks = rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall()
        sent = shell("audit", "--republish", "--json")
        assert (sent.code, sent.document["republished"], sent.document["refused"]) == (64, 299, 1)
        assert lost_rows(rig, topic) == [overtaken["id"]]
        again = [id_of(record) for record in rig.kafka.consume(topic)][-299:]
        assert again == sorted(again)

        forced = shell.ok("audit", "--republish", "--force", "--json")
        assert forced.document["republished"] == 1
        assert lost_rows(rig, topic) == []
        after = shell.ok("audit", "--json").document
        assert (after["lost"], after["elsewhere"] >= 300) == (0, True)
        assert rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall() == marks
    finally:
        rig.kafka.start_broker(dead)


def test_rows_beyond_retention_and_compacted_rows_are_no_losses(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from confluent_kafka import TopicPartition

    topic, compacted = rig.topic(partitions=1), rig.topic(partitions=1, config={"cleanup.policy": "compact"})
    rig.insert_many([topic, compacted], 400, keys=20)
    assert rig.daemon().run("--until-empty").code == 0
    futures = rig.kafka.admin.delete_records([TopicPartition(topic, 0, 150)])
    for future in futures.values():
        future.result(20)
    # As a route with confirm = "none" leaves it.
    rig.sql.execute("UPDATE outboxd.outbox SET published_offset = NULL, published_partition = NULL WHERE id = 399")
    shell = shell_of(rig, monkeypatch, capsys)

    found = shell.ok("audit", "--json").document

    assert (found["checked"], found["beyond_retention"], found["lost"]) == (399, 150, 0)
    assert found["unconfirmed"] == 1
    assert shell.ok("audit", "--topic", compacted, "--json").document["beyond_retention"] == 0
    assert shell.ok("audit", "--since", "1h", "--json").document["checked"] == 399
    text = shell.ok("audit").out
    assert "150 are beyond their topic's retention" in text


def test_rows_of_a_topic_that_was_made_anew_are_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = rig.topic(partitions=1)
    ids = [rig.insert(topic, f"key-{number}") for number in range(5)]
    assert rig.daemon().run("--until-empty").code == 0
    rig.kafka.delete_topic(topic)
    shell = shell_of(rig, monkeypatch, capsys)

    gone = shell("audit", "--json")
    assert (gone.code, {row["found"] for row in gone.document["lost_rows"]}) == (69, {"no such partition"})

    rig.kafka.create_topic(topic, partitions=1)
    ended = shell("audit", "--json")
    assert [row["id"] for row in ended.document["lost_rows"]] == ids
    assert {row["found"] for row in ended.document["lost_rows"]} == {"log ends before"}
    shell.ok("audit", "--republish")
    assert [id_of(record) for record in rig.kafka.consume(topic)] == ids


def test_rows_behind_a_transaction_of_somebody_else_are_not_called_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = rig.topic(partitions=1)
    rig.insert(topic, "before")
    assert rig.daemon().run("--until-empty").code == 0
    stranger = Producer({"bootstrap.servers": rig.kafka.bootstrap, "transactional.id": fresh_name("stranger")})
    stranger.init_transactions(30)
    stranger.begin_transaction()
    stranger.produce(topic, b"open")
    stranger.flush(30)
    ids = [rig.insert(topic, f"behind-{number}") for number in range(3)]
    assert rig.daemon().run("--until-empty").code == 0
    shell = shell_of(rig, monkeypatch, capsys)

    found = shell("audit", "--republish", "--json")
    told = found.document
    assert (found.code, told["fine"], told["unreadable"], told["lost"], told["republished"]) == (69, 1, 3, 0, 0)

    stranger.abort_transaction(30)
    wait_for(lambda: shell("audit", "--json").code == 0, timeout_seconds=20, what="all can be read")
    assert shell.ok("audit", "--json").document["fine"] == 4
    assert [id_of(record) for record in rig.kafka.consume(topic)][1:] == ids


def test_an_audit_of_a_busy_outbox_ends_with_the_rows_that_there_were_when_it_began(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outboxd.postgres.operators.published.WINDOW_ROWS", 2)
    engine = make_engine(database.url)
    published = (
        "INSERT INTO outboxd.outbox (topic, payload, published_at, published_partition, published_offset)"
        " SELECT 'orders', 'x', now(), 0, i FROM generate_series(1, %s) AS i"
    )
    try:
        with database.connect() as writer:
            writer.execute(published, (5,))
            walked: list[int] = []
            for _, rows, _ in PublishedRows(engine, "outboxd", "outbox").windows(topic=None, since=None):
                walked += [row.id for row in rows]
                assert len(walked) <= 5, "it runs after the rows that come meanwhile"
                writer.execute(published, (2,))
        assert walked == [1, 2, 3, 4, 5]
    finally:
        engine.dispose()


def test_the_audit_refuses_what_it_cannot_do(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = shell_of(rig, monkeypatch, capsys)
    monkeypatch.setenv("OUTBOXD_RELAY__AFTER_PUBLISH", "delete")
    refused = shell("audit")
    assert refused.code == 64
    assert "not kept" in refused.err
    monkeypatch.delenv("OUTBOXD_RELAY__AFTER_PUBLISH")
    assert shell("audit", "--force").code == 64
    assert shell("audit", "--since", "yesterday").code == 64
