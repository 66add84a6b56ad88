"""A connection to Kafka that comes to nothing is told with its true cause, by real clients."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from confluent_kafka import KafkaException

from outboxd.errors import ConfigError
from outboxd.kafka.checks.inspection import inspect
from outboxd.kafka.client.client_config import check_client
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.kafka.transactional.shard_clients import ShardClients
from outboxd.policy.exchange.findings import Finding, Weight
from tests.support.children import free_ports, wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_config import make_certificates
from tests.support.kafka_fixtures import started
from tests.support.proxy import Fault

HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"


@contextmanager
def listening(answer: bytes | Literal["silence"]) -> Iterator[str]:
    """A server that is no Kafka broker: it hears a request, answers this and hangs up, or keeps silent."""
    kept: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if answer == "silence":
                kept.append(peer)
                continue
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    for peer in kept:
        peer.close()


def only_problem(bootstrap: str, **properties: str) -> Finding:
    (found,) = inspect({"bootstrap.servers": bootstrap, **properties}, {})
    assert found.weight is Weight.UNAVAILABLE
    return found


def test_a_server_that_hangs_up_as_one_with_tls_does_is_told_once_with_security_protocol() -> None:
    with listening(b"") as address:
        found = only_problem(address)
    assert found.message.count(f"{address}/bootstrap: Disconnected") == 1, found.message
    assert "brokers are down" not in found.message
    assert "may want TLS, and then security.protocol of [kafka] is ssl or sasl_ssl" in found.remedy
    assert "a proxy before one that is down" in found.remedy


def test_a_server_that_speaks_http_is_told_once_as_no_broker() -> None:
    with listening(HTTP) as address:
        found = only_problem(address)
    assert found.message.count("Invalid response size") == 1, found.message
    assert "no Kafka broker" in found.remedy


def test_a_server_that_keeps_silent_is_told_to_do_so() -> None:
    with listening("silence") as address:
        found = only_problem(address)
    assert f"{address}/bootstrap: Connection setup timed out in state APIVERSION_QUERY" in found.message
    assert "keeps silent" in found.remedy


def test_each_of_several_servers_is_told_with_its_own_cause() -> None:
    port = free_ports(1)[0]
    with listening(b"") as address:
        found = only_problem(f"127.0.0.1:{port},{address}")
    assert f"127.0.0.1:{port}/bootstrap: Connect to ipv4#127.0.0.1:{port} failed: Connection refused" in found.message
    assert f"{address}/bootstrap: Disconnected" in found.message
    assert "nothing listens there" in found.remedy
    assert "may want TLS" in found.remedy


def test_a_publisher_knows_that_a_server_hung_up_and_what_that_may_mean() -> None:
    with listening(b"") as address:
        publisher = KafkaPublisher(
            {"bootstrap.servers": address}, source="shop", in_flight_rows_max=10, in_flight_bytes_max=1_000
        )

        def is_told() -> bool:
            publisher.poll(0.01)
            return publisher.cluster_error is not None and "may want TLS" in publisher.cluster_error

        wait_for(is_told, timeout_seconds=10, what="the cause is told")
        with pytest.raises(KafkaException):
            publisher.contact(0.1)
        assert address in str(publisher.cluster_error)
        publisher.close()


def test_with_exactly_once_delivery_it_is_known_though_no_transaction_can_begin() -> None:
    with listening(b"") as address:
        clients = ShardClients({"bootstrap.servers": address}, source="shop", schema="outboxd", rows_max=10)
        with pytest.raises(KafkaException):
            clients.contact(2.0)
        told = str(clients.failure.told)
    assert f"{address}/bootstrap: Disconnected" in told
    assert "may want TLS" in told


@pytest.mark.parametrize(("key", "remedy"), [("locked.key", "ssl.key.password"), ("ca.key", "not that of the")])
def test_a_key_that_cannot_be_used_is_told_with_what_may_be_wrong_with_it(
    tmp_path: Path, key: str, remedy: str
) -> None:
    make_certificates(tmp_path)
    locking = ["openssl", "ec", "-in", "server.key", "-out", "locked.key", "-aes256", "-passout", "pass:right"]
    subprocess.run(locking, check=True, cwd=tmp_path, capture_output=True, timeout=30)
    properties = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "ssl",
        "ssl.certificate.location": str(tmp_path / "server.crt"),
        "ssl.key.location": str(tmp_path / key),
        "ssl.key.password": "wr0ng-s3cret",
    }
    (found,) = inspect(properties, {})
    assert found.weight is Weight.MISCONFIGURED
    assert remedy in found.remedy
    with pytest.raises(ConfigError, match=remedy) as refused:
        check_client(properties)
    assert "s3cret" not in found.message + found.remedy + str(refused.value)


@pytest.fixture(scope="module")
def proxied_kafka() -> Iterator[KafkaCluster]:
    """A broker that advertises the address of its proxy."""
    yield from started(lambda: KafkaCluster(brokers=1, proxies=True))


def test_a_broker_that_cannot_be_reached_where_it_advertises_to_be_is_a_problem(proxied_kafka: KafkaCluster) -> None:
    assert [found.weight for found in inspect({"bootstrap.servers": proxied_kafka.direct_bootstrap}, {})] == [
        Weight.FINE
    ]
    proxied_kafka.proxies[0].set(Fault.REFUSE)
    try:
        _, found = inspect({"bootstrap.servers": proxied_kafka.direct_bootstrap}, {})
    finally:
        proxied_kafka.proxies[0].heal()
    assert found.weight is Weight.UNAVAILABLE
    assert "broker 0 does not answer at the address that it advertises" in found.message
    assert f"{proxied_kafka.bootstrap}/0" in found.message
