"""The test brokers themselves: what other tests take for granted about them is shown here once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_config import make_certificates
from tests.support.kafka_fixtures import MakeTopic, fresh_name, started
from tests.support.kafka_jars import KafkaMissingError
from tests.support.proxy import Fault

TIMEOUT_SECONDS = 20.0


class Client:
    """A producer that keeps the codes of its reports and of its error events."""

    def __init__(self, config: dict[str, str]) -> None:
        self.codes: list[int] = []
        self.event_codes: list[int] = []
        settings: dict[str, object] = {
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "log_level": 0,
            "reconnect.backoff.max.ms": 250,
            "error_cb": lambda error: self.event_codes.append(error.code()),
        }
        self.producer = Producer(settings | config)

    def produce(self, topic: str, count: int = 1) -> None:
        for number in range(count):
            self.producer.produce(
                topic, b"value-%d" % number, b"key-%d" % (number % 7), headers=[("n", b"%d" % number)], on_delivery=self
            )

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.codes.append(0 if error is None else error.code())

    def reported(self, count: int) -> bool:
        self.producer.poll(0.02)
        return len(self.codes) >= count

    def send(self, topic: str, count: int = 1) -> list[int]:
        """Produce and return the codes of the reports."""
        already = len(self.codes)
        self.produce(topic, count)
        wait_for(lambda: self.reported(already + count), timeout_seconds=TIMEOUT_SECONDS, what="all reports come")
        return self.codes[already:]


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    """A broker whose clients need TLS, a password and grants, and go through a proxy."""
    yield from started(lambda: KafkaCluster(sasl=True, tls=True, proxies=True, plain_users={"relay": "relay-secret"}))


def test_what_was_produced_is_consumed_in_order_with_its_headers(kafka: KafkaCluster, topic: MakeTopic) -> None:
    name = topic(partitions=3)
    assert Client({"bootstrap.servers": kafka.bootstrap}).send(name, count=500) == [0] * 500
    records = kafka.consume(name)
    assert sum(kafka.end_offsets(name).values()) == len(records) == 500
    assert sorted(int(record.header("n") or b"") for record in records) == list(range(500))
    for key in {record.key for record in records}:
        numbers = [int(record.header("n") or b"") for record in records if record.key == key]
        assert numbers == sorted(numbers)


def test_a_topic_can_be_made_smaller_and_deleted_under_a_producer(kafka: KafkaCluster, topic: MakeTopic) -> None:
    name = topic(partitions=1)
    kafka.alter_topic_config(name, {"max.message.bytes": "1000"})
    client = Client({"bootstrap.servers": kafka.bootstrap})
    client.producer.produce(name, b"x" * 2000, on_delivery=client)
    wait_for(lambda: client.reported(1), timeout_seconds=TIMEOUT_SECONDS, what="the broker refuses the record")
    assert client.codes == [KafkaError.MSG_SIZE_TOO_LARGE]
    kafka.alter_topic_config(name, {"max.message.bytes": None})
    assert client.send(name) == [0]
    kafka.delete_topic(name)
    assert name not in kafka.admin.list_topics(timeout=5).topics


def test_read_committed_hides_what_a_transaction_aborted(kafka: KafkaCluster, topic: MakeTopic) -> None:
    name = topic(partitions=1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": name, "log_level": 0})
    producer.init_transactions(TIMEOUT_SECONDS)
    for value, commit in ((b"aborted", False), (b"committed", True)):
        producer.begin_transaction()
        producer.produce(name, value)
        producer.flush(TIMEOUT_SECONDS)
        if commit:
            producer.commit_transaction(TIMEOUT_SECONDS)
        else:
            producer.abort_transaction(TIMEOUT_SECONDS)
    assert [record.value for record in kafka.consume(name)] == [b"committed"]
    uncommitted = kafka.consume(name, isolation="read_uncommitted")
    assert [record.value for record in uncommitted] == [b"aborted", b"committed"]


def test_a_killed_and_a_frozen_broker_come_back_with_their_records(kafka: KafkaCluster, topic: MakeTopic) -> None:
    name = topic(partitions=1)
    client = Client({"bootstrap.servers": kafka.bootstrap})
    assert client.send(name, count=10) == [0] * 10
    kafka.kill(0)
    client.produce(name, count=5)
    kafka.start_broker(0)
    wait_for(lambda: client.reported(15), timeout_seconds=TIMEOUT_SECONDS, what="what waited is delivered")
    kafka.pause(0)
    client.produce(name, count=5)
    client.producer.poll(0.3)
    assert len(client.codes) == 15
    kafka.resume(0)
    wait_for(lambda: client.reported(20), timeout_seconds=TIMEOUT_SECONDS, what="what waited is delivered")
    assert client.codes == [0] * 20
    assert len(kafka.consume(name)) == 20


def test_without_a_grant_a_topic_is_denied_and_with_it_allowed(guarded: KafkaCluster) -> None:
    name = guarded.create_topic(fresh_name(), partitions=1)
    client = Client(guarded.client_config("relay"))
    with pytest.raises(KafkaException) as refused:
        # The report, or produce() itself once the client knows; either says so.
        raise KafkaException(KafkaError(client.send(name)[0]))
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    guarded.grant("relay", name)
    wait_for(lambda: _accepted(client, name), timeout_seconds=TIMEOUT_SECONDS, what="the grant is known to the client")
    guarded.revoke("relay", name)
    wait_for(
        lambda: not _accepted(client, name), timeout_seconds=TIMEOUT_SECONDS, what="what was granted is taken back"
    )
    assert {record.value for record in guarded.consume(name)} == {b"value-0"}


def test_a_password_can_be_changed_while_the_broker_runs(guarded: KafkaCluster) -> None:
    name = guarded.create_topic(fresh_name(), partitions=1)
    guarded.grant("rotating", name)
    guarded.set_scram_password("rotating", "first")
    assert Client(guarded.client_config("rotating", "first", scram=True)).send(name) == [0]
    guarded.set_scram_password("rotating", "second")
    late = Client(guarded.client_config("rotating", "first", scram=True))
    late.produce(name)
    wait_for(
        lambda: late.reported(1) or KafkaError._AUTHENTICATION in late.event_codes,
        timeout_seconds=TIMEOUT_SECONDS,
        what="the old password is refused",
    )
    assert late.codes == []
    guarded.set_scram_password("rotating", "first")
    wait_for(lambda: late.reported(1), timeout_seconds=TIMEOUT_SECONDS, what="what waited is delivered")
    assert late.codes == [0]


def test_a_client_that_does_not_know_the_authority_is_kept_out(guarded: KafkaCluster, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    stranger = Client(guarded.client_config("relay") | {"ssl.ca.location": str(tmp_path / "ca.crt")})
    with pytest.raises(KafkaException):
        stranger.producer.list_topics(timeout=1)
    stranger.producer.poll(0)  # Brings the error events.
    assert KafkaError._SSL in stranger.event_codes


def test_clients_go_through_the_proxy_and_hear_nothing_in_a_black_hole(guarded: KafkaCluster) -> None:
    proxy = guarded.proxies[0]
    name = guarded.create_topic(fresh_name(), partitions=1)
    client = Client(guarded.client_config())
    assert client.send(name) == [0]
    assert proxy.open_connections > 0
    proxy.set(Fault.BLACK_HOLE)
    try:
        client.produce(name)
        client.producer.poll(0.3)
        assert client.codes == [0]
        assert sum(guarded.end_offsets(name).values()) == 1  # The harness has its own way in.
    finally:
        proxy.heal()
    wait_for(lambda: client.reported(2), timeout_seconds=TIMEOUT_SECONDS, what="what waited is delivered")
    assert proxy.cut() > 0
    assert client.send(name) == [0]
    assert [record.offset for record in guarded.consume(name)] == [0, 1, 2]


def test_a_child_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = """
import sys
from pathlib import Path
from tests.support.children import spawn
print(spawn(["sleep", "600"], log=Path(sys.argv[1])).pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, 0)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: _gone(child), timeout_seconds=TIMEOUT_SECONDS, what="the kernel ends the child")


@pytest.mark.parametrize(("in_ci", "outcome"), [("true", KafkaMissingError), ("", pytest.skip.Exception)])
def test_a_missing_java_fails_in_ci_and_elsewhere_skips_saying_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", in_ci)
    with pytest.raises(outcome, match="apt-get install"):
        next(started(KafkaCluster))


def _accepted(client: Client, topic: str) -> bool:
    try:
        return client.send(topic) == [0]
    except KafkaException as refused:
        assert refused.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        client.producer.poll(0.1)
        return False


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
