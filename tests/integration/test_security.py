"""Least rights, TLS and passwords on both sides, for the whole daemon; secrets are seen nowhere, and may be changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from outboxd.errors import AccessDeniedError
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from tests.integration.test_roles import make_roles
from tests.support.children import free_ports
from tests.support.daemon import ROOT, DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_config import make_certificates
from tests.support.kafka_fixtures import started
from tests.support.postgres import PostgresMissingError, PostgresServer
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import value

PASSWORDS = {role: f"{role}-s3cret-of-postgres" for role in ("writer", "relay", "operator", "reader")}
KAFKA_PASSWORD = "relay-s3cret-of-kafka"
TOKEN = "s3cret-of-the-page"
TEMPLATE = "secured"


@pytest.fixture(scope="module")
def secured_server() -> Iterator[PostgresServer]:
    """A PostgreSQL with the tables, where each role has a login of its own, by TLS and password."""
    try:
        server = PostgresServer(secured=True)
    except PostgresMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    try:
        server.start()
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        upgrade(server.url(TEMPLATE), "outboxd")
        make_roles(Database(server, TEMPLATE))
        with server.connect() as connection:
            for role, password in PASSWORDS.items():
                connection.execute(
                    psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                        psycopg.sql.Identifier(f"the_{role}"),
                        psycopg.sql.Literal(password),
                        psycopg.sql.Identifier(f"outboxd_{role}"),
                    )
                )
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def secured_kafka() -> Iterator[KafkaCluster]:
    """A broker that takes TLS and SASL only, and lets nobody do what no ACL allows."""
    yield from started(lambda: KafkaCluster(brokers=1, sasl=True, tls=True))


@pytest.fixture
def secured(secured_server: PostgresServer, secured_kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    secured_kafka.set_scram_password("relay", KAFKA_PASSWORD)
    (tmp_path / "kafka-password").write_text(KAFKA_PASSWORD + "\n")
    (tmp_path / "database-password").write_text(PASSWORDS["relay"] + "\n")
    (tmp_path / "token").write_text(TOKEN + "\n")
    properties = secured_kafka.client_config("relay", KAFKA_PASSWORD, scram=True)
    properties["sasl.password_file"] = str(tmp_path / "kafka-password")
    del properties["sasl.password"]
    name = f"secured_{uuid.uuid4().hex[:8]}"
    with secured_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    rig = Rig(
        Database(secured_server, name),
        secured_kafka,
        tmp_path,
        kafka_properties=properties,
        database_url=secured_server.secured_url(name, "the_relay"),
    )
    # What the tests note down is no part of what the roles are for.
    rig.sql.execute("GRANT INSERT ON public.written TO PUBLIC")
    try:
        yield rig
    finally:
        rig.close()
        for topic in rig.topics:
            secured_kafka.revoke("relay", topic)


def daemon_of(secured: Rig, **sections: dict[str, object]) -> DaemonProcess:
    sections = {"database": {"password_file": str(secured.directory / "database-password")}, **sections}
    return secured.daemon(**sections)  # type: ignore[arg-type]  # sections are mappings


def checked(daemon: DaemonProcess) -> subprocess.CompletedProcess[str]:
    """What `outboxd check` says of the daemon's configuration."""
    return subprocess.run(
        [sys.executable, "-m", "outboxd", "check", "-c", str(daemon.config)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


def connect_as(secured: Rig, role: str) -> psycopg.Connection[tuple[object, ...]]:
    url = secured.database.server.secured_url(secured.database.name, f"the_{role}")
    return psycopg.connect(url, password=PASSWORDS[role], autocommit=True)


def granted(secured: Rig) -> str:
    topic = secured.topic()
    secured.kafka.grant("relay", topic)
    return topic


def test_a_wrong_password_is_told_as_such_though_the_server_lets_nobody_in_without_tls(
    secured_server: PostgresServer,
) -> None:
    address = secured_server.url(TEMPLATE, "the_relay").replace("@", ":wrong@")
    with pytest.raises(AccessDeniedError) as told:
        make_engine(f"{address}?sslmode=prefer").connect()
    assert "no pg_hba.conf entry" in str(told.value), "the library tried without TLS too"
    assert str(told.value).endswith("look at database.url and its password, and at the role's VALID UNTIL")


def test_every_role_does_its_work_with_the_whole_daemon_by_tls_and_password(secured: Rig) -> None:
    topic = granted(secured)
    daemon = daemon_of(secured)
    daemon.start()
    daemon.wait_for_event("owner")
    with connect_as(secured, "writer") as writer:
        assert value(writer, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        for number in range(20):
            writer.execute("SELECT outboxd.enqueue(%s, %s, %s::text)", (topic, f"key-{number % 3}", f"row {number}"))
        poison = value(writer, "SELECT outboxd.enqueue('no topic!', 'a', 'poison')")
    secured.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter")
    secured.wait_until_settled()
    with connect_as(secured, "operator") as operator:
        letter = value(operator, "SELECT id FROM outboxd.dead_letter WHERE outbox_id = %s", poison)
        operator.execute("UPDATE outboxd.dead_letter SET topic = %s WHERE id = %s", (topic, letter))
        assert value(operator, "SELECT outboxd.replay(%s, note => 'mended')", letter) == 1
        secured.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter WHERE id = %s", letter)
        operator.execute("SELECT outboxd.pause(%s)", (topic,))
        daemon.wait_for_event("topic_paused", topic=topic)
        with connect_as(secured, "writer") as writer:
            writer.execute("SELECT outboxd.enqueue(%s, 'k', 'later')", (topic,))
        operator.execute("SELECT outboxd.resume(%s)", (topic,))
    secured.wait_until_settled()
    with connect_as(secured, "reader") as reader:
        assert value(reader, "SELECT pending FROM outboxd.status") == 0
    assert daemon.stop().code == 0
    ids = sorted(int(record.header("outbox-id") or 0) for record in secured.kafka.consume(topic))
    assert ids == list(range(1, 23))


def test_a_password_is_seen_nowhere(secured: Rig) -> None:
    topic = granted(secured)
    port = free_ports(1)[0]
    daemon = daemon_of(
        secured,
        http={"listen": f"127.0.0.1:{port}", "token_file": str(secured.directory / "token")},
        log={"format": "json", "level": "debug"},
    )
    # Its command line shall be its own.
    daemon.is_forked = False
    daemon.start()
    daemon.wait_for_event("owner")
    secured.insert(topic)
    secured.wait_until_settled()
    shown = [Path(f"/proc/{daemon.pid}/cmdline").read_text()]
    for path in ("/status", "/metrics", "/", "/readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            shown.append(answer.read().decode())
    for command in (["config", "show"], ["config", "show", "--json"], ["status", "--json"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "outboxd", *command, "-c", str(daemon.config)],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        shown += [done.stdout, done.stderr]
    assert daemon.stop().code == 0
    shown += [daemon.log_text]
    assert json.loads(shown[1])["kafka"]["up"] is True
    for text in shown:
        assert "s3cret" not in text


def test_a_wrong_password_ends_with_77_and_a_sentence_without_it(secured: Rig) -> None:
    (secured.directory / "database-password").write_text("wrong-s3cret")
    ended = daemon_of(secured).run()
    assert ended.code == 77
    assert "password authentication failed" in ended.err
    assert "s3cret" not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_a_wrong_password_of_the_broker_holds_everything_and_is_told_without_it(secured: Rig) -> None:
    topic = granted(secured)
    (secured.directory / "kafka-password").write_text("wrong-s3cret")
    port = free_ports(1)[0]
    daemon = daemon_of(secured, http={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    daemon.wait_for_event("owner")
    secured.insert(topic)
    # Mended, and read again: the client's own setter takes it, and the row goes.
    (secured.directory / "kafka-password").write_text(KAFKA_PASSWORD)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reloaded", changed="kafka.sasl.password")
    secured.wait_until_settled()
    assert daemon.stop().code == 0
    assert "s3cret" not in daemon.log_text
    assert not secured.dead_letters()


def test_the_check_says_all_that_may_be_wrong_with_a_brokers_certificate(secured: Rig, tmp_path: Path) -> None:
    make_certificates(tmp_path / "stranger")
    daemon = daemon_of(secured, kafka={"ssl.ca.location": str(tmp_path / "stranger" / "ca.crt")})
    done = checked(daemon)
    assert done.returncode == 69, done.stderr
    assert "certificate verify failed" in done.stdout
    assert "of another host than the one asked, or not valid at this time" in done.stdout


def test_the_check_says_all_that_may_be_wrong_with_the_databases_certificate(secured: Rig, tmp_path: Path) -> None:
    make_certificates(tmp_path / "stranger")
    url = secured.database_url or ""
    theirs = str(secured.database.server.certificate_authority)
    daemon = daemon_of(secured, database={"url": url.replace(theirs, str(tmp_path / "stranger" / "ca.crt"))})
    done = checked(daemon)
    assert done.returncode == 69, done.stderr
    assert "certificate verify failed" in done.stdout
    assert "of another authority than sslrootcert of database.url has, or not valid at this time" in done.stdout


def test_a_client_without_tls_or_login_is_told_by_the_check_and_the_daemon_what_the_broker_may_want(
    secured: Rig,
) -> None:
    daemon = daemon_of(secured, kafka={"security.protocol": "plaintext"})
    done = checked(daemon)
    assert done.returncode == 69, done.stderr
    assert "may want TLS, and then security.protocol of [kafka] is ssl or sasl_ssl" in done.stdout
    daemon.start()
    cause = daemon.wait_for_event("kafka_failed")["cause"]
    assert secured.kafka.bootstrap in cause
    assert "may want TLS, and then security.protocol of [kafka] is ssl or sasl_ssl" in cause


def test_rotated_passwords_are_taken_by_a_reload_without_losing_or_repeating_a_row(secured: Rig) -> None:
    topic = granted(secured)
    server, kafka = secured.database.server, secured.kafka
    daemon = daemon_of(secured)
    daemon.start()
    daemon.wait_for_event("owner")
    secured.insert_many([topic], 500, keys=20)
    secured.wait_until_settled()

    with server.connect() as superuser:
        superuser.execute("ALTER ROLE the_relay PASSWORD 'rotated-s3cret-of-postgres'")
    kafka.set_scram_password("relay", "rotated-s3cret-of-kafka")
    (secured.directory / "database-password").write_text("rotated-s3cret-of-postgres\n")
    (secured.directory / "kafka-password").write_text("rotated-s3cret-of-kafka\n")
    daemon.signal(signal.SIGHUP)
    changed = daemon.wait_for_event("config_reloaded")["changed"]
    assert set(changed.split(", ")) == {"database.password", "kafka.sasl.password"}

    # All connections end, and only the new passwords make new ones.
    secured.sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'the_relay'")
    kafka.restart(0)
    secured.insert_many([topic], 500, keys=20)
    secured.wait_until_settled()
    assert daemon.stop().code == 0
    with server.connect() as superuser:
        superuser.execute(
            psycopg.sql.SQL("ALTER ROLE the_relay PASSWORD {}").format(psycopg.sql.Literal(PASSWORDS["relay"]))
        )
    secured.check().assert_holds(duplicates_max=0)
    assert "s3cret" not in daemon.log_text


@pytest.fixture(scope="module")
def mutual_kafka() -> Iterator[KafkaCluster]:
    """A broker that asks its clients for a certificate by its own authority."""
    yield from started(
        lambda: KafkaCluster(brokers=1, tls=True, options={"listener.name.client.ssl.client.auth": "required"})
    )


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_certificate_that_was_renewed_in_its_place_is_taken_by_a_reload(
    database: Database, mutual_kafka: KafkaCluster, tmp_path: Path, delivery: str
) -> None:
    authority = Path(mutual_kafka.client_config()["ssl.ca.location"])
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"

    def put_in_place(directory: Path) -> None:
        for file in (certificate, key):
            shutil.copyfile(directory / file.name.replace("client", "server"), file)

    # By a stranger's authority: the broker refuses it as it does one that has expired.
    make_certificates(tmp_path / "stranger")
    put_in_place(tmp_path / "stranger")
    named = {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key)}
    rig = Rig(database, mutual_kafka, tmp_path, kafka_properties={**mutual_kafka.client_config(), **named})
    try:
        topic = rig.topic()
        daemon = rig.daemon(relay={"delivery": delivery})
        daemon.start()
        daemon.wait_for_event("kafka_failed")
        put_in_place(authority.parent)
        daemon.signal(signal.SIGHUP)
        taken = daemon.wait_for_event("config_reloaded")["changed"]
        assert set(taken.split(", ")) == {f"kafka.{name}" for name in named}
        rig.insert_many([topic], 50, keys=5)
        rig.wait_until_settled()
        assert daemon.stop().code == 0
        rig.check().assert_holds()
    finally:
        rig.close()
