"""What a test broker begins with: `server.properties` for a node of a KRaft cluster, plain or secured; its storage."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
_BEGINNING = "bootstrap.checkpoint"


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The loopback ports of one broker; `advertised` is where clients are sent, which may be a proxy's."""

    client: int
    internal: int
    controller: int
    advertised: int


@dataclass(frozen=True, slots=True)
class Security:
    """What clients must bring. PLAIN users stand in the configuration, SCRAM users come by AdminClient."""

    sasl: bool
    tls: bool
    plain_users: Mapping[str, str]
    certificates: Path | None

    @property
    def protocol(self) -> str:
        """Kafka's name of the protocol of the clients' listener."""
        return {(0, 0): "PLAINTEXT", (0, 1): "SSL", (1, 0): "SASL_PLAINTEXT", (1, 1): "SASL_SSL"}[self.sasl, self.tls]


def node_properties(
    index: int, nodes: Sequence[NodePorts], data: Path, security: Security, options: Mapping[str, str]
) -> dict[str, str]:
    """Return the properties of node `index`; `options` win over everything here.

    Three listeners: CLIENT is what tests use and may be secured or proxied; INTERNAL is for the brokers and for
    the harness itself, always plain, so that a test which breaks its clients' way in can still look at the cluster.
    """
    own, copies = nodes[index], min(3, len(nodes))
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(index),
        "controller.quorum.voters": ",".join(f"{i}@{LOOPBACK}:{node.controller}" for i, node in enumerate(nodes)),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENT://{LOOPBACK}:{own.client},INTERNAL://{LOOPBACK}:{own.internal},"
        f"CONTROLLER://{LOOPBACK}:{own.controller}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{own.advertised},INTERNAL://{LOOPBACK}:{own.internal}",
        "listener.security.protocol.map": f"CLIENT:{security.protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "3",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": "1" if copies < 3 else "2",
        "min.insync.replicas": "1" if copies < 3 else "2",
        "group.initial.rebalance.delay.ms": "0",
        # Two cores and a small heap: the defaults would take 128 MiB of it for the cleaner alone.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "4194304",
        # An idle quorum else writes a record that says nothing twice a second, which is a third of what it takes, and
        # those of all workers idle most of the time.
        "metadata.max.idle.interval.ms": "0",
        # Tests stop and kill brokers: notice it in seconds.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "6000",
    }
    return properties | _security_properties(security) | dict(options)


def _security_properties(security: Security) -> dict[str, str]:
    properties: dict[str, str] = {}
    if security.sasl:
        users = " ".join(f'user_{name}="{password}"' for name, password in security.plain_users.items())
        properties |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Only the plain listeners, which tests do not hand out, have anonymous users.
            "super.users": "User:ANONYMOUS;User:admin",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "listener.name.client.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
            f"required {users};",
            "listener.name.client.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram."
            "ScramLoginModule required;",
        }
    if security.certificates is not None:
        properties |= {
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.location": str(security.certificates / "server.pem"),
            "listener.name.client.ssl.truststore.type": "PEM",
            "listener.name.client.ssl.truststore.location": str(security.certificates / "ca.crt"),
        }
    return properties


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file; a backslash is its escape character."""
    lines = [f"{name}={value}".replace("\\", "\\\\") for name, value in properties.items()]
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")


def fresh_id() -> str:
    """Return an id as Kafka writes them."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def beginning_of(storage: Path) -> bytes:
    """Return which features the cluster of a formatted storage begins with, as Kafka wrote it."""
    return (storage / _BEGINNING).read_bytes()


def write_storage(storage: Path, cluster_id: str, broker: int, beginning: bytes) -> None:
    """Make the storage of a broker, which begins as another one did."""
    storage.mkdir()
    (storage / _BEGINNING).write_bytes(beginning)
    ids = {"version": "1", "cluster.id": cluster_id, "node.id": str(broker), "directory.id": fresh_id()}
    write_properties(storage / "meta.properties", ids)


def make_certificates(directory: Path, *, days: int = 2) -> None:
    """Make an authority (`ca.crt`) and a certificate for loopback signed by it (`server.pem`: key, then chain)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "san").write_text(f"subjectAltName=DNS:localhost,IP:{LOOPBACK}\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"]
    _openssl(directory, "req", "-x509", *key, "ca.key", "-out", "ca.crt", "-days", str(days), "-subj", "/CN=tests")
    _openssl(directory, "req", *key, "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san", "-days", str(days)]
    _openssl(directory, "x509", "-req", "-in", "server.csr", "-out", "server.crt", *sign)
    parts = [directory / "server.key", directory / "server.crt", directory / "ca.crt"]
    (directory / "server.pem").write_text("".join(part.read_text() for part in parts))


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], check=False, cwd=directory, capture_output=True, text=True, timeout=30
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr}")
