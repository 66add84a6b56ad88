"""Columns of the type `char`, which a table of somebody's own may have: their padding is seen nowhere."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig
from tests.support.shell import shell_on

ENQUEUE = ("bytea", "text", "jsonb")


@pytest.mark.timeout(120)
def test_topics_and_keys_that_the_table_pads_are_sent_checked_and_audited_without_the_padding(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for payload in ENQUEUE:
        rig.sql.execute(f"DROP FUNCTION outboxd.enqueue(text, text, {payload}, jsonb) CASCADE")
    rig.sql.execute("DROP VIEW outboxd.status, outboxd.held_keys")
    rig.sql.execute("ALTER TABLE outboxd.outbox ALTER topic TYPE char(60), ALTER topic DROP NOT NULL")
    rig.sql.execute("ALTER TABLE outboxd.outbox ALTER key TYPE char(20)")
    topic = rig.topic()
    rig.insert(topic, "a")
    shell = shell_on(rig.database, monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=rig.kafka.bootstrap)
    told = [each["message"] for each in shell("check", "--json").document["findings"] if each["area"] == "topics"]
    assert not any("dead-lettered" in message for message in told), told

    rig.sql.execute("INSERT INTO outboxd.outbox (payload) VALUES ('x')")
    told = [each["message"] for each in shell("check", "--json").document["findings"] if each["area"] == "topics"]
    assert any("the topic is empty" in message for message in told), told
    assert rig.daemon().run("--until-empty").code == 0
    (record,) = rig.kafka.consume(topic)
    assert record.key == b"a"
    assert "1 is at its place" in shell.ok("audit").out or "1 are at their place" in shell.ok("audit").out
