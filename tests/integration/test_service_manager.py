"""The daemon under a service manager: what a real notify socket hears of its life, and of what is stuck in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import psycopg
import pytest

from outboxd.config import DatabaseSettings, HttpSettings, KafkaSettings, RelaySettings, Settings
from outboxd.config.sections import ClusterSettings
from outboxd.daemon.daemon import Daemon
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.transactional.transactions import Tell
from outboxd.policy.exchange.messages import ProgressRow, Report
from outboxd.policy.rows.records import Record
from outboxd.relay.ports import Publisher
from tests.support.children import free_ports
from tests.support.notify_socket import NotifySocket
from tests.support.rig import Rig

WATCHDOG_SECONDS = 1.0
SILENCE_SECONDS = 2.5
"""Longer than the watchdog's period and its beat together."""


def test_it_is_ready_after_the_first_fetch_and_a_brokers_answer_and_says_how_it_is_and_that_it_stops(
    rig: Rig, notify_socket: NotifySocket
) -> None:
    daemon = rig.daemon()
    daemon.start()
    notify_socket.wait_for("READY=1")
    assert daemon.events("owner")
    notify_socket.wait_for("STATUS=relaying, idle")
    notify_socket.forget()
    daemon.signal(signal.SIGTERM)
    notify_socket.wait_for("STOPPING=1")
    assert daemon.wait().code == 0
    notify_socket.forget()
    assert notify_socket.said.count("STOPPING=1") <= 1


def test_a_standby_is_ready_too(rig: Rig, notify_socket: NotifySocket) -> None:
    owner, standby = rig.daemon(), rig.daemon()
    owner.start()
    notify_socket.wait_for("READY=1")
    notify_socket.forget()
    standby.start()
    notify_socket.wait_for("READY=1")
    notify_socket.wait_for("STATUS=standing by")


def test_a_standby_says_so_in_its_log_and_an_owner_does_not(rig: Rig) -> None:
    owner, standby = rig.daemon(), rig.daemon()
    owner.start()
    owner.wait_for_event("owner")
    standby.start()
    standby.wait_for_event("standing_by")
    assert not owner.events("standing_by")
    assert owner.stop().code == 0
    standby.wait_for_event("owner")
    assert standby.stop().code == 0
    assert len(standby.events("standing_by")) == 1


def test_without_a_broker_it_is_not_ready_says_why_and_asks_for_more_time(
    rig: Rig, notify_socket: NotifySocket
) -> None:
    daemon = rig.daemon(kafka={"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"})
    daemon.start()
    notify_socket.wait_for("EXTEND_TIMEOUT_USEC=60000000")
    notify_socket.wait_for("STATUS=relaying, idle, Kafka does not answer")
    assert "READY=1" not in notify_socket.said
    assert "WATCHDOG=1" not in notify_socket.said


def test_a_reload_is_announced_and_ended(rig: Rig, notify_socket: NotifySocket) -> None:
    daemon = rig.daemon()
    daemon.start()
    notify_socket.wait_for("READY=1")
    notify_socket.forget()
    daemon.signal(signal.SIGHUP)
    notify_socket.wait_for("RELOADING=1")
    notify_socket.wait_for("READY=1")
    daemon.wait_for_event("config_reloaded", changed="nothing new")


def test_a_service_manager_that_stands_still_holds_up_neither_rows_nor_the_end(
    rig: Rig, notify_socket: NotifySocket
) -> None:
    daemon = rig.daemon()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chatter:
        chatter.setblocking(False)
        chatter.connect(str(notify_socket.path))
        with suppress(BlockingIOError):
            while True:
                chatter.send(b"STATUS=nobody takes this")
    daemon.start()
    topic = rig.topic()
    rig.insert_many([topic], 100, keys=10)
    rig.wait_until_settled()
    assert daemon.stop().code == 0


# --- The watchdog: fetch, settlement and the broker's poll are blocked in turn, for real.


def sticky(publisher: Publisher, free: threading.Event) -> Publisher:
    """The real publisher, whose `poll` waits while `free` is not set."""
    poll = publisher.poll

    def wait(timeout_seconds: float) -> None:
        free.wait()
        poll(timeout_seconds)

    publisher.poll = wait  # type: ignore[method-assign]  # the one call that gets stuck
    return publisher


@contextmanager
def running(
    rig: Rig, delivery: str = "at-least-once", decorate: Callable[[Publisher], Publisher] | None = None
) -> Iterator[Daemon]:
    """A daemon on a thread of this process. Its lock waits are long, so that a lock blocks it for good."""
    settings = Settings(
        database=DatabaseSettings(url=rig.database.url),
        kafka=KafkaSettings(properties={"bootstrap.servers": rig.kafka.bootstrap}),
        relay=RelaySettings.model_validate({"shutdown_timeout_seconds": 1.0, "delivery": delivery}),
        cluster=ClusterSettings(lease_ttl_seconds=60.0),
        http=HttpSettings(listen=""),
    )
    daemon = Daemon(settings, decorate_publisher=decorate)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def watchdog(notify_socket: NotifySocket, monkeypatch: pytest.MonkeyPatch) -> NotifySocket:
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_SECONDS * 1e6)))
    return notify_socket


both_deliveries = pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])


@both_deliveries
def test_the_watchdog_is_not_told_while_a_fetch_is_stuck(rig: Rig, watchdog: NotifySocket, delivery: str) -> None:
    with running(rig, delivery) as daemon:
        watchdog.wait_for("READY=1")
        watchdog.forget()
        watchdog.wait_for("WATCHDOG=1")
        with rig.sql.transaction():
            rig.sql.execute("LOCK TABLE outboxd.outbox IN ACCESS EXCLUSIVE MODE")
            watchdog.wait_for_silence("WATCHDOG=1", seconds=SILENCE_SECONDS)
            assert daemon._manager.stuck() == "fetch"
        watchdog.forget()
        watchdog.wait_for("WATCHDOG=1")


@both_deliveries
def test_the_watchdog_is_not_told_while_a_settlement_is_stuck(rig: Rig, watchdog: NotifySocket, delivery: str) -> None:
    topic = rig.topic()
    with running(rig, delivery) as daemon:
        watchdog.wait_for("READY=1")
        rig.insert(topic)
        rig.wait_until_settled()
        # Waits for locks end soon; a server's process that stands still does not.
        pooled = daemon.assembly.store._writer._pooled
        assert pooled is not None
        backend_pid = cast("psycopg.Connection", pooled.driver_connection).info.backend_pid
        os.kill(backend_pid, signal.SIGSTOP)
        try:
            rig.insert(topic)
            watchdog.wait_for_silence("WATCHDOG=1", seconds=SILENCE_SECONDS)
            assert daemon._manager.stuck() == "settle"
        finally:
            os.kill(backend_pid, signal.SIGCONT)
        watchdog.forget()
        watchdog.wait_for("WATCHDOG=1")
        rig.wait_until_settled()


@both_deliveries
def test_the_watchdog_is_not_told_while_the_brokers_poll_is_stuck(
    rig: Rig, watchdog: NotifySocket, delivery: str
) -> None:
    free = threading.Event()
    free.set()
    with running(rig, delivery, lambda publisher: sticky(publisher, free)):
        watchdog.wait_for("READY=1")
        free.clear()
        try:
            watchdog.wait_for_silence("WATCHDOG=1", seconds=SILENCE_SECONDS)
        finally:
            free.set()
        watchdog.forget()
        watchdog.wait_for("WATCHDOG=1")


def test_the_watchdog_is_not_told_while_a_call_of_a_transaction_is_stuck(rig: Rig, watchdog: NotifySocket) -> None:
    topic, free = rig.topic(), threading.Event()
    with running(rig, "exactly-once") as daemon:
        watchdog.wait_for("READY=1")
        publisher = daemon.assembly.publisher
        assert isinstance(publisher, TransactionalPublisher)
        deliver = publisher._transactions.deliver

        def stuck(records: Sequence[Record], restated: Sequence[ProgressRow], tell: Tell) -> list[Report]:
            free.wait()
            return deliver(records, restated, tell)

        publisher._transactions.deliver = stuck  # type: ignore[method-assign]  # the worker's one way to Kafka
        rig.insert(topic)
        try:
            watchdog.wait_for_silence("WATCHDOG=1", seconds=SILENCE_SECONDS)
            assert daemon._manager.stuck() == "transactions"
        finally:
            free.set()
        watchdog.forget()
        watchdog.wait_for("WATCHDOG=1")
        rig.wait_until_settled()


def test_a_transaction_that_waits_for_brokers_is_not_stuck(rig: Rig, watchdog: NotifySocket) -> None:
    topic = rig.topic()
    with running(rig, "exactly-once"):
        watchdog.wait_for("READY=1")
        rig.kafka.pause(0)
        try:
            rig.insert(topic)
            watchdog.forget()
            # Four periods of the watchdog, in which brokers answer nothing.
            watchdog.take_while(lambda: watchdog.said.count("WATCHDOG=1") < 12, seconds_max=10)
        finally:
            rig.kafka.resume(0)
        rig.wait_until_settled()


def test_a_daemon_that_is_watched_and_well_tells_so_three_times_a_period(rig: Rig, watchdog: NotifySocket) -> None:
    with running(rig):
        watchdog.wait_for("READY=1")
        watchdog.forget()
        watchdog.take_while(lambda: watchdog.said.count("WATCHDOG=1") < 6, seconds_max=4)


# --- The log


def test_what_the_client_says_of_itself_is_an_event_like_any_other(rig: Rig) -> None:
    daemon = rig.daemon(kafka={"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"})
    daemon.start()
    said = daemon.wait_for_event("library_message", logger="librdkafka")
    assert "Connection refused" in said["cause"]
    assert daemon.stop().code == 0
    assert all(line.startswith("{") for line in daemon.log_text.splitlines()), daemon.log_text


def test_two_daemons_with_one_configuration_share_the_pages_address(rig: Rig) -> None:
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    first, second = rig.daemon(http={"listen": listen}), rig.daemon(http={"listen": listen})

    def who_answers() -> str:
        with suppress(OSError), urllib.request.urlopen(f"http://{listen}/status", timeout=5) as answer:
            return str(json.load(answer)["daemon"])
        return ""

    first.start()
    first.wait_for_event("owner")
    second.start()
    second.wait_for_event("http_address_taken", address=listen)
    assert who_answers().endswith(f":{first.pid}")
    first.kill()
    second.wait_for_event("owner")
    second.wait_for_event("http_address_free", address=listen)
    assert who_answers().endswith(f":{second.pid}")
    assert second.stop().code == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "absent.invalid"])
def test_a_page_whose_address_is_not_there_keeps_no_row_waiting(rig: Rig, tmp_path: Path, host: str) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    # 192.0.2.0/24 is for documentation: nobody has it.
    daemon = rig.daemon(http={"listen": f"{host}:9464", "token_file": str(tmp_path / "token")})
    daemon.start()
    assert daemon.wait_for_event("http_address_missing", address=f"{host}:9464")["cause"]
    daemon.wait_for_event("owner")
    assert daemon.stop().code == 0
