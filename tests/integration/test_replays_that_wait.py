"""Replays of an outbox that no daemon relays any more: they wait, and who looks is told."""

from __future__ import annotations

import pytest

from tests.support.kafka import KafkaCluster
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import Letters, value
from tests.support.shell import shell_on

RENAME = "UPDATE outboxd.dead_letter SET outbox = 'renamed' WHERE outbox = 'default'"


def test_check_warns_of_replays_of_another_outbox_that_nobody_relays(
    database: Database, kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings() -> list[str]:
        shell = shell_on(database, monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap)
        document = shell.ok("check", "--json").document
        return [finding["message"] for finding in document["findings"] if finding["weight"] == "warning"]

    with database.connect() as connection:
        here, removed, unknown = (Letters(connection, outbox) for outbox in ("default", "removed", "unknown"))
        letters = [each.bury(each.enqueue(key=None)) for each in (here, removed, removed, unknown)]
        assert value(connection, "SELECT outboxd.replay(%s)", letters) == 4
        removed.acquire()
        connection.execute("UPDATE outboxd.lease SET relayed_table = 'another'")
        assert warnings() == ["the outbox unknown was never relayed: the replay of 1 dead letter of it waits"]
        connection.execute("UPDATE outboxd.lease SET expires_at = '2026-01-31 12:00+00'")
        told = warnings()
    assert told[0].startswith("the outbox removed has been relayed by nobody since 2026-01-31")
    assert told[0].endswith(": the replay of 2 dead letters of it waits")
    assert len(told) == 2


def test_letters_of_an_outbox_that_was_renamed_go_once_they_are_given_its_new_name(rig: Rig) -> None:
    topic = rig.topic()
    former = rig.daemon()
    former.start()
    dead = rig.insert(topic, headers='"no object"')
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
    assert former.stop().code == 0

    rig.daemon(outbox={"name": "renamed"}).start()
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.lease WHERE outbox = 'renamed'")
    notices: list[str] = []
    rig.sql.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary} {notice.message_hint}"))
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")
    assert rig.count("SELECT outboxd.replay(id) FROM outboxd.dead_letter") == 1
    assert 'no daemon relays the outbox "default" (relayed last until' in notices[0]
    assert "UPDATE dead_letter SET outbox" in notices[0]
    assert rig.dead_letters()[dead]["status"] == "replaying"

    rig.sql.execute(RENAME)
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'replayed'")
    assert len(rig.kafka.consume(topic)) == 1
