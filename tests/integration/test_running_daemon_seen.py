"""A running daemon as its people and their tools see it: health, status, metrics, the page's JSON, alerts."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import free_ports, wait_for
from tests.support.daemon import DaemonProcess, Section
from tests.support.postgres import PostgresServer
from tests.support.rig import Rig

TOKEN = "correct horse"


class Seen:
    """One daemon's HTTP side."""

    def __init__(self, rig: Rig, directory: Path, **sections: Section) -> None:
        (self._port,) = free_ports(1)
        (directory / "token").write_text(TOKEN)
        listen = {"listen": f"127.0.0.1:{self._port}", "token_file": str(directory / "token")}
        self.daemon: DaemonProcess = rig.daemon((), http=listen, **sections)

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            sent = {"Content-Type": "application/json", **headers} if body is not None else headers
            connection.request(
                "GET" if body is None else "POST", path, None if body is None else json.dumps(body), sent
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        return json.loads(self.ask(path)[1])

    def metric(self, series: str) -> float:
        found = re.search(rf"(?m)^outboxd_{re.escape(series)} (\S+)$", self.ask("/metrics")[1])
        return float(found[1]) if found else 0.0

    def wait(self, condition: Callable[[], bool], what: str, timeout_seconds: float = 40.0) -> None:
        wait_for(condition, timeout_seconds=timeout_seconds, what=f"{what}; it said: {self.daemon.log_text[-2000:]}")


@pytest.fixture
def seen(rig: Rig, tmp_path: Path) -> Seen:
    """A daemon that has become ready."""
    seen = Seen(rig, tmp_path)
    seen.daemon.start()
    seen.wait(lambda: seen.ask("/readyz")[0] == 200, "ready")
    return seen


def test_a_working_daemon_is_counted_by_topic_and_seen_in_its_status(rig: Rig, seen: Seen) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 500, keys=50)
    rig.wait_until_settled()
    assert seen.ask("/livez")[0] == 200
    assert seen.metric(f'records_published_total{{topic="{topic}"}}') == 500
    assert seen.metric("commit_to_ack_seconds_count") == 500
    seen.wait(lambda: seen.metric("leader") == 1, "the gauge, which follows four times a second")
    assert (seen.metric("database_up"), seen.metric("kafka_up")) == (1, 1)
    assert seen.metric('phase_seconds_count{phase="settle"}') >= 1
    seen.wait(lambda: seen.json("/status")["relay"]["in_memory_rows"] == 0, "nothing in memory")
    status = seen.json("/status")
    assert (status["relay"]["role"], status["database"]["up"], status["kafka"]["up"]) == ("owner", True, True)
    assert status["published_by_topic"] == {topic: 500}
    seen.wait(lambda: sum(point[1] for point in seen.json("/api/points")) > 0, "a point with a rate")


def test_a_second_daemon_is_ready_and_stands_by(rig: Rig, seen: Seen, tmp_path: Path) -> None:
    other = Seen(rig, tmp_path)
    other.daemon.start()
    other.wait(lambda: other.ask("/readyz")[0] == 200, "the standby is ready")
    assert other.json("/status")["relay"]["role"] == "standby"
    assert other.json("/status")["state"].startswith("standing by")
    assert other.metric("leader") == 0
    assert seen.metric("leader") == 1


def test_a_paused_topic_is_seen_to_be_paused_by_whom(rig: Rig, seen: Seen) -> None:
    topic = rig.topic()
    rig.insert(topic)
    rig.wait_until_settled()
    rig.sql.execute("SELECT outboxd.pause(%s, 'too loud')", (topic,))
    seen.wait(lambda: bool(seen.json("/status")["relay"]["pauses"]), "the pause")
    relay = seen.json("/status")["relay"]
    assert relay["pauses"][0]["note"] == "too loud"
    assert relay["held_topics"] == [{"topic": topic, "reasons": ["paused"]}]
    assert seen.metric("paused") == 1


def test_a_dead_letter_is_found_understood_mended_and_replayed_by_the_page(rig: Rig, seen: Seen) -> None:
    topic = rig.topic()
    row_id = rig.insert(topic, payload=b'{"total": 1}', headers='{"bad": 5}')
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter")
    (group,) = seen.json("/api/dead-letters")["groups"]
    assert (group["topic"], group["error_code"], group["count"]) == (topic, "INVALID_HEADERS", 1)
    (row,) = seen.json(f"/api/dead-letters/rows?topic={topic}")["rows"]
    one = seen.json(f"/api/dead-letters/{row['id']}")
    assert (one["letter"]["outbox_id"], one["payload"]) == (row_id, '{"total": 1}')
    assert one["remedy"]
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")
    change = {"ids": [row["id"]], "note": "header mended", "who": "anna"}
    assert seen.ask("/api/dead-letters/replay", change)[0] == 401
    assert seen.ask("/api/dead-letters/replay", change, Authorization=f"Bearer {TOKEN}")[0] == 200
    rig.wait_until("SELECT bool_and(status = 'replayed') FROM outboxd.dead_letter")
    (record,) = rig.kafka.consume(topic)
    assert record.value == b'{"total": 1}'
    note = rig.dead_letters()[row_id]["note"]
    assert "header mended" in note
    assert "anna" in note
    assert seen.daemon.events("dead_letters_replayed")[0]["rows"] == 1


@pytest.mark.slow
def test_a_new_kind_of_dead_letter_reaches_the_alert_command(rig: Rig, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    program = f"import pathlib, sys; pathlib.Path({str(told)!r}).write_text(sys.stdin.read())"
    command = f'{sys.executable} -c "{program}"'
    seen = Seen(rig, tmp_path, alerts={"command": command})
    seen.daemon.start()
    seen.wait(lambda: seen.ask("/readyz")[0] == 200, "ready")
    seen.wait(lambda: seen.json("/status")["backlog"]["dead"] == 0, "the first measurement")
    topic = rig.topic()
    rig.insert(topic, headers='{"bad": 5}')
    seen.wait(lambda: told.exists() and told.read_text().endswith("\n"), "the alert")
    alert = json.loads(told.read_text())
    assert alert["event"] == "dead_letter_kind_appeared"
    assert (alert["fields"]["topic"], alert["fields"]["error_code"]) == (topic, "INVALID_HEADERS")
    assert rig.sql.execute(alert["fields"]["sql"]).fetchone() is not None
    assert alert["outbox"] == "default"
    seen.wait(lambda: seen.metric(f'dead_letter_records{{topic="{topic}"}}') == 1, "the gauge")


def test_a_broker_that_is_away_makes_the_daemon_unready_and_leaves_it_alive(rig: Rig, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        seen = Seen(rig, tmp_path, kafka={"bootstrap.servers": f"127.0.0.1:{closed.getsockname()[1]}"})
        seen.daemon.start()
        seen.wait(lambda: "does not answer" in seen.ask("/readyz")[1], "unready")
        status, body = seen.ask("/readyz")
        assert status == 503
        assert any("Kafka does not answer" in why for why in json.loads(body)["why"])
        assert seen.ask("/livez")[0] == 200
        assert seen.metric("kafka_up") == 0


def test_after_postgresql_was_away_for_longer_than_the_lease_an_idle_daemon_is_ready_again(
    rig: Rig, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    seen = Seen(rig, tmp_path, cluster={"lease_ttl": "2s"})
    seen.daemon.start()
    seen.daemon.wait_for_event("owner")
    seen.wait(lambda: seen.ask("/readyz")[0] == 200, "ready")
    rig.sql.close()
    postgres_server.stop()
    try:
        seen.daemon.wait_for_event("lease_lost")
        seen.wait(lambda: seen.ask("/readyz")[0] == 503, "unready")
        assert seen.metric("database_up") == 0
    finally:
        postgres_server.start()
    seen.daemon.wait_for_event("owner", count=2)
    seen.wait(lambda: seen.ask("/readyz")[0] == 200, "ready again without a row", timeout_seconds=25)
    assert seen.metric("database_up") == 1
    seen.wait(lambda: seen.json("/status")["state"] == "relaying, idle", "the sentence, which follows")


def test_at_debug_each_row_says_where_it_is_or_why_it_is_not(rig: Rig, tmp_path: Path) -> None:
    seen = Seen(rig, tmp_path, log={"format": "json", "level": "debug"})
    seen.daemon.start()
    topic = rig.topic(partitions=1)
    row_id = rig.insert(topic, created_at="2026-01-02 03:04:05+00")
    bad_id = rig.insert(topic, headers='{"bad": 5}')
    told = seen.daemon.wait_for_event("row_delivered", outbox_id=row_id)
    assert (told["place"], told["created_at"]) == (f"{topic}-0@0", "2026-01-02T03:04:05.000+00:00")
    assert seen.daemon.wait_for_event("row_failed", outbox_id=bad_id)["error_code"] == "INVALID_HEADERS"


def test_at_info_no_row_has_a_line_of_its_own(rig: Rig, seen: Seen) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 200, keys=10)
    rig.wait_until_settled()
    lines = [line for line in seen.daemon.log_text.splitlines() if line.startswith("{")]
    assert len(lines) < 20
