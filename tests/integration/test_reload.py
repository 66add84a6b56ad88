"""SIGHUP under load: what can change changes at once, a bad file changes nothing, and no row notices either."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.children import free_ports, wait_for
from tests.support.daemon import DaemonProcess
from tests.support.rig import Rig

ROWS = 20_000


@contextmanager
def writing(rig: Rig, topics: list[str]) -> Iterator[None]:
    """Commit rows of the topics, a thousand a transaction, on a thread of their own; all are there at the end."""

    def write() -> None:
        with rig.database.connect() as connection:
            for _ in range(ROWS // 1_000):
                connection.execute(
                    "INSERT INTO outboxd.outbox (topic, key, payload) SELECT (%s::text[])[1 + i %% %s],"
                    " 'key-' || (i %% 50), convert_to('payload ' || i, 'UTF8') FROM generate_series(1, 1000) AS i",
                    (topics, len(topics)),
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


def rewrite(daemon: DaemonProcess, *changes: tuple[str, str]) -> None:
    text = daemon.config.read_text()
    for before, after in changes:
        assert before in text, f"{before} is not in {text}"
        text = text.replace(before, after)
    daemon.config.write_text(text)


def test_reloads_under_load_lose_nothing_and_repeat_nothing(rig: Rig) -> None:
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(
        [{"topic": f"{topics[0]}*", "confirm": "callback"}],
        relay={"batch_rows": 500, "max_in_flight_rows": 2000},
        retry={"max_attempts": 5},
        kafka={"linger.ms": "2"},
    )
    daemon.start()
    daemon.wait_for_event("owner")
    with writing(rig, topics):
        rig.wait_until("SELECT count(published_at) > 2000 FROM outboxd.outbox")
        rewrite(daemon, ("max_attempts = 5", "max_attempts = 7"), ("batch_rows = 500", "batch_rows = 300"))
        daemon.signal(signal.SIGHUP)
        taken = daemon.wait_for_event("config_reloaded")["changed"]
        assert set(taken.split(", ")) == {"relay.batch_rows", "retry.max_attempts"}

        whole = daemon.config.read_text()
        daemon.config.write_text(whole.replace("batch_rows = 300", "batch_rowz = 0") + "[relai]\n")
        daemon.signal(signal.SIGHUP)
        refused = daemon.wait_for_event("config_reload_failed")["cause"]
        assert "relay.batch_rowz" in refused
        assert "relai" in refused

        rewrite(
            daemon,
            ("batch_rowz = 0", "batch_rows = 300"),
            ("[relai]\n", ""),
            ('"linger.ms" = "2"', '"linger.ms" = "1"'),
        )
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("config_reloaded", changed="kafka.linger.ms")
        renewed = daemon.wait_for_event("producer_renewed")
        assert (renewed["unknown_rows"], renewed["reason"]) == (0, "its configuration changed")

        rewrite(daemon, ('confirm = "callback"', 'confirm = "each"'))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("config_reloaded", changed="route")
        assert daemon.wait_for_event("producer_renewed", count=2)["unknown_rows"] == 0
        rewrite(daemon, ('confirm = "each"', 'confirm = "callback"'))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("producer_renewed", count=3)
        rewrite(daemon, ("max_in_flight_rows = 2000", "max_in_flight_rows = 9000"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("config_reloaded", changed="relay.max_in_flight_rows")
        assert daemon.wait_for_event("producer_renewed", count=4)["unknown_rows"] == 0
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=0)


def test_what_needs_a_restart_is_said_and_not_done(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay={"after_publish": "mark", "poll_interval_max": "50ms"})
    daemon.start()
    daemon.wait_for_event("owner")
    rewrite(daemon, ('"mark"', '"delete"'), ("50ms", "60ms"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reloaded", changed="relay.poll_interval_max")
    assert daemon.wait_for_event("config_needs_restart")["changed"] == "relay.after_publish"
    rig.insert(topic)
    rig.wait_until("SELECT count(published_at) = 1 FROM outboxd.outbox")
    assert daemon.stop().code == 0


def test_the_log_level_changes_at_once_and_the_metric_says_how_the_last_reload_went(rig: Rig) -> None:
    port = free_ports(1)[0]
    daemon = rig.daemon(http={"listen": f"127.0.0.1:{port}"}, log={"format": "json", "level": "error"})

    def metric() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        return next(line for line in lines if line.startswith("outboxd_config_last_reload_successful "))

    daemon.start()
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.lease")
    rewrite(daemon, ('"error"', '"info"'))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reloaded", changed="log.level")
    assert metric().endswith(" 1.0")
    daemon.config.write_text("[nothing")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reload_failed")
    assert metric().endswith(" 0.0")

    def relays() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            role = json.load(answer)["relay"]["role"]
        return bool(role == "owner")

    wait_for(relays, timeout_seconds=10, what="it relays as before")
    assert daemon.stop().code == 0


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            '"client.id" = "a"',
            '"security.protocol" = "ssl"\n"ssl.ca.location" = "/nowhere/ca.crt"',
            "ssl.ca.location failed",
        ),
        ('command = "true"', 'command = "true \\"open"', "alerts.command"),
    ],
    ids=["a file that is not there", "an open quote"],
)
def test_what_a_reload_cannot_use_changes_nothing_of_it_and_is_a_mistake_of_the_configuration_at_a_start(
    rig: Rig, before: str, after: str, told: str
) -> None:
    topic = rig.topic()
    daemon = rig.daemon(kafka={"client.id": "a"}, alerts={"command": "true"}, log={"format": "json", "level": "info"})
    daemon.start()
    daemon.wait_for_event("owner")
    usable = daemon.config.read_text()
    rewrite(daemon, (before, after), ('"info"', '"debug"'))
    daemon.signal(signal.SIGHUP)
    assert told in str(daemon.wait_for_event("config_reload_failed")["cause"])
    rig.insert(topic)
    rig.wait_until_settled()
    unusable, _ = daemon.config.read_text(), daemon.config.write_text(usable)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reloaded", changed="nothing new")
    assert daemon.stop().code == 0
    assert not daemon.events("row_delivered")

    daemon.config.write_text(unusable)
    daemon.start()
    ended = daemon.wait()
    assert (ended.code, told in ended.err) == (78, True), ended.err


def test_an_exactly_once_daemon_renews_its_producer_and_each_record_is_there_once(rig: Rig) -> None:
    topics = [rig.topic(), rig.topic()]
    daemon = rig.daemon(relay={"delivery": "exactly-once", "batch_rows": 500}, kafka={"linger.ms": "2"})
    daemon.start()
    daemon.wait_for_event("owner")
    with writing(rig, topics):
        rig.wait_until("SELECT count(published_at) > 2000 FROM outboxd.outbox")
        rewrite(daemon, ('"linger.ms" = "2"', '"linger.ms" = "1"'))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("config_reloaded", changed="kafka.linger.ms")
        daemon.wait_for_event("producer_renewed")
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=0)


def test_with_exactly_once_what_the_transactions_client_refuses_is_a_mistake_and_no_reload_takes_it(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay={"delivery": "exactly-once"}, kafka={"socket.timeout.ms": "20000"})
    daemon.start()
    daemon.wait_for_event("owner")
    usable = daemon.config.read_text()
    # Fine for a client without transactions; this is librdkafka's own default.
    rewrite(daemon, ("20000", "60000"))
    daemon.signal(signal.SIGHUP)
    assert "socket.timeout.ms" in daemon.wait_for_event("config_reload_failed")["cause"]
    rig.insert(topic)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    ended = daemon.run()
    assert (ended.code, "socket.timeout.ms" in ended.err) == (78, True), ended.err
    daemon.config.write_text(usable)
    assert daemon.run("--until-empty").code == 0


def test_a_reload_that_is_asked_for_while_the_daemon_starts_is_no_end_and_is_made_once_it_relays(rig: Rig) -> None:
    daemon = rig.daemon(relay={"batch_rows": 500})
    former = daemon.config.read_text()
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    daemon.start()
    # Opened once the daemon opens it too: so it has begun, and takes no signals yet.
    with daemon.config.open("w") as pipe:
        daemon.signal(signal.SIGHUP)
        daemon.config.unlink()
        daemon.config.write_text(former.replace("batch_rows = 500", "batch_rows = 300"))
        pipe.write(former)
    daemon.wait_for_event("config_reloaded", changed="relay.batch_rows")
    assert daemon.stop().code == 0
