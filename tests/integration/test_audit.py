"""Published rows held against the log: what is lost is named and sent again, and what only seems to be is not."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.operators.published import PublishedRows
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.kafka_fixtures import fresh_name
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.shell import Shell, shell_on


def shell_of(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell that reaches both servers of the rig."""
    environ = {"OUTBOXD_KAFKA__BOOTSTRAP_SERVERS": rig.kafka.bootstrap}
    return shell_on(rig.database, monkeypatch, capsys, **environ)


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
