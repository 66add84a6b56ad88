"""What each client is told, whatever the configuration asks for."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from outboxd.kafka.checks.transaction_checks import inspect_transactions
from outboxd.kafka.client.client_config import CLIENT_LOGGER, lone_config, producer_config, transactional_config
from outboxd.kafka.cluster.log_reader import LogReader
from outboxd.kafka.cluster.topic_limits import topic_configs
from outboxd.kafka.dead_letter_copies import DeadLetterCopier
from outboxd.kafka.transactional.shard_clients import ShardClients

TALKATIVE = {"bootstrap.servers": "a:9092", "statistics.interval.ms": "1"}


class Asked:
    """A client that answers nothing."""

    def __init__(self, config: dict[str, Any], **_: object) -> None:
        made.append(config)

    def list_topics(self, timeout: float) -> Any:
        del timeout
        return type("Metadata", (), {"cluster_id": None})()

    def poll(self, timeout: float) -> int:
        del timeout
        return 0


made: list[dict[str, Any]] = []


def test_no_client_makes_statistics_which_would_pile_up_where_nobody_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made.clear()
    monkeypatch.setattr("outboxd.kafka.transactional.shard_clients.AdminClient", Asked)
    monkeypatch.setattr("outboxd.kafka.dead_letter_copies.Producer", Asked)
    ShardClients(TALKATIVE, source="default", schema="outboxd", rows_max=10).contact(1.0)
    DeadLetterCopier(TALKATIVE, "dead", "default").send([], threading.Event())
    configs = [
        *made,
        producer_config(TALKATIVE, in_flight_rows_max=10, in_flight_bytes_max=10),
        lone_config(TALKATIVE),
        transactional_config(TALKATIVE, transactional_id="id", timeout_ms=1_000, rows_max=10, is_lone=False),
    ]
    assert [config["statistics.interval.ms"] for config in configs] == [0] * 5


def test_the_clients_queue_has_room_for_any_record_that_the_client_takes() -> None:
    config = producer_config({"message.max.bytes": "1000000000"}, in_flight_rows_max=10, in_flight_bytes_max=1_000)
    assert config["queue.buffering.max.kbytes"] * 1024 >= 1_000_000_000  # type: ignore[operator]  # a whole number


def test_no_client_writes_past_the_log_whatever_is_to_be_debugged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for limit in ("cluster.topic_limits.ASK_SECONDS_MAX", "checks.transaction_checks.ANSWER_SECONDS"):
        monkeypatch.setattr(f"outboxd.kafka.{limit}", 0.1)
    asked = {"bootstrap.servers": "127.0.0.1:1", "debug": "conf,broker", "log_level": "7"}
    list(topic_configs(asked, ["orders"]))
    list(inspect_transactions(asked, "id", "progress"))
    LogReader(asked, "default").close()
    copier = DeadLetterCopier(asked, "dead", "default")
    copier.send([], threading.Event())
    assert capfd.readouterr() == ("", "")


def test_suspects_of_a_transaction_go_one_request_at_a_time_whatever_the_user_says() -> None:
    """Those behind a refused one would need a new epoch, for which its abort would wait half a second."""
    ways = [
        transactional_config(
            {"max.in.flight.requests.per.connection": "5"},
            transactional_id="id",
            timeout_ms=1_000,
            rows_max=10,
            is_lone=is_lone,
        )
        for is_lone in (True, False)
    ]
    assert [way["max.in.flight.requests.per.connection"] for way in ways] == [1, "5"]
    assert [way.get("batch.num.messages") for way in ways] == [1, None]


def test_the_endpoint_that_gives_no_token_is_told_without_the_secrets_of_its_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = Producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "outboxd",
            "sasl.oauthbearer.client.secret": "hush",
            "sasl.oauthbearer.token.endpoint.url": "http://u:hush@127.0.0.1:1/token?scope=x&client_secret=hush",
        },
        logger=CLIENT_LOGGER,
    )
    with caplog.at_level(logging.WARNING):
        deadline = time.monotonic() + 20
        while "OIDC token" not in caplog.text and time.monotonic() < deadline:
            producer.poll(0.1)
    assert '"http://********@127.0.0.1:1/token?********"' in caplog.text
    assert "hush" not in caplog.text
