"""A real Kafka cluster for tests: brokers in KRaft mode on loopback, as children that die with the run.

with KafkaCluster(brokers=3) as cluster:
    cluster.create_topic("orders", partitions=6, replication=3)
    cluster.kill(0)
    records = cluster.consume("orders")
"""

from __future__ import annotations

import atexit
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.children import end, free_ports, spawn, wait_for
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kafka_config import (
    LOOPBACK,
    NodePorts,
    Security,
    beginning_of,
    fresh_id,
    make_certificates,
    node_properties,
    write_properties,
    write_storage,
)
from tests.support.kafka_jars import alone_in, class_archive, kafka_jars
from tests.support.proxy import TcpProxy

# Brokers of tests live for seconds or minutes: the serial collector needs no threads of its own on two cores, and what
# the second compiler would win later costs more at each start. Benchmarks bring options of their own.
JAVA_OPTIONS = ("-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 20.0
_ARCHIVE_TIMEOUT_SECONDS = 120.0
# What a new cluster begins with, as Kafka's tool wrote it for the first one.
_beginnings: list[bytes] = []


class KafkaCluster(KafkaAdmin):
    """One to three brokers, each a controller too.

    `options` are broker properties that win over the harness's. `sasl` asks clients for PLAIN or SCRAM-SHA-256
    credentials and denies what no ACL allows; `plain_users` (name to password) are known from the start, `admin` is a
    super user. `tls` encrypts the clients' listener. `proxies` puts a TcpProxy before each broker, for clients only.
    """

    def __init__(
        self,
        brokers: int = 1,
        options: Mapping[str, str] | None = None,
        *,
        sasl: bool = False,
        tls: bool = False,
        plain_users: Mapping[str, str] | None = None,
        proxies: bool = False,
        java_options: Sequence[str] | None = None,
    ) -> None:
        self._libs = kafka_jars()
        if java_options is None:
            java_options = (*JAVA_OPTIONS, f"-XX:SharedArchiveFile={_archived_classes(self._libs)}")
        self._options = dict(options or {})
        self._java_options = list(java_options)
        self._directory = Path(tempfile.mkdtemp(prefix="outboxd-kafka-"))
        atexit.register(self.stop)
        users = {"admin": "admin-secret"} | dict(plain_users or {})
        self._security = Security(sasl, tls, users, self._directory / "tls" if tls else None)
        ports = free_ports(3 * brokers)
        self._nodes = [
            NodePorts(client, internal, controller, advertised=client)
            for client, internal, controller in zip(ports[0::3], ports[1::3], ports[2::3], strict=True)
        ]
        self.proxies: list[TcpProxy] = []
        if proxies:
            self.proxies = [TcpProxy((LOOPBACK, node.client)) for node in self._nodes]
            pairs = zip(self._nodes, self.proxies, strict=True)
            self._nodes = [replace(node, advertised=proxy.port) for node, proxy in pairs]
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        super().__init__(",".join(f"{LOOPBACK}:{node.internal}" for node in self._nodes))

    @property
    def bootstrap(self) -> str:
        """Addresses for clients, through the proxies if there are any; `bootstrap.servers` takes it as it is."""
        return ",".join(f"{LOOPBACK}:{node.advertised}" for node in self._nodes)

    @property
    def direct_bootstrap(self) -> str:
        """Addresses of the clients' listener past the proxies, which the brokers advertise all the same."""
        return ",".join(f"{LOOPBACK}:{node.client}" for node in self._nodes)

    @property
    def internal_bootstrap(self) -> str:
        """Addresses of the plain listener that no proxy and no credential guards."""
        return ",".join(f"{LOOPBACK}:{node.internal}" for node in self._nodes)

    def client_config(
        self, user: str | None = None, password: str | None = None, *, scram: bool = False
    ) -> dict[str, str]:
        """Return librdkafka properties with which `user` reaches the clients' listener."""
        config = {"bootstrap.servers": self.bootstrap, "security.protocol": self._security.protocol}
        if self._security.certificates is not None:
            config["ssl.ca.location"] = str(self._security.certificates / "ca.crt")
        if self._security.sasl:
            user = user or "admin"
            config["sasl.mechanism"] = "SCRAM-SHA-256" if scram else "PLAIN"
            config["sasl.username"] = user
            config["sasl.password"] = password if password is not None else self._security.plain_users[user]
        return config

    def set_plain_password(self, user: str, password: str) -> None:
        """Give `user` a new PLAIN password; brokers know it after their next start; SCRAM's change at run time."""
        self._security = replace(self._security, plain_users=dict(self._security.plain_users) | {user: password})

    def log_text(self, broker: int) -> str:
        """Return what `broker` has logged since the cluster was made."""
        path = self._log(broker)
        return path.read_text(errors="replace") if path.exists() else ""

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Format the storage and start every broker; return when all of them answer. About 2 s for one broker."""
        if self._security.certificates is not None:
            make_certificates(self._security.certificates)
        self._format_storage()
        for broker in range(len(self._nodes)):
            self._spawn(broker)
        self._wait_until_up(range(len(self._nodes)))
        return self

    def stop(self) -> None:
        """Kill every broker, close the proxies and remove the files. Safe to call twice."""
        atexit.unregister(self.stop)
        self.close_clients()
        for child in self._children.values():
            end(child, grace_seconds=0)
        for proxy in self.proxies:
            proxy.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- faults ----------------------------------------------------------------------------------------------

    def pid(self, broker: int) -> int:
        """Return the process id of `broker`."""
        return self._children[broker].pid

    def kill(self, broker: int) -> None:
        """SIGKILL `broker`; returns when it is gone."""
        end(self._children[broker], grace_seconds=0)

    def pause(self, broker: int) -> None:
        """SIGSTOP `broker`: its connections stay open and nothing answers. Returns when it stands still."""
        child = self._children[broker]
        child.send_signal(signal.SIGSTOP)
        wait_for(
            lambda: _stands_still(child.pid), timeout_seconds=_STOP_TIMEOUT_SECONDS, what="the broker stands still"
        )

    def resume(self, broker: int) -> None:
        """SIGCONT a paused `broker`."""
        self._children[broker].send_signal(signal.SIGCONT)

    @property
    def works(self) -> bool:
        """Whether every broker runs, and none is paused."""
        children = self._children.values()
        return all(child.poll() is None and not _stands_still(child.pid) for child in children)

    def heal(self) -> None:
        """Resume what is paused and start what is stopped."""
        for broker, child in self._children.items():
            if child.poll() is not None:
                self.start_broker(broker, wait=False)
            else:
                self.resume(broker)
        self._wait_until_up(list(self._children))

    def stop_broker(self, broker: int, *, grace_seconds: float = _STOP_TIMEOUT_SECONDS) -> None:
        """SIGTERM `broker`, which hands over its leaderships; SIGKILL when that takes longer than `grace_seconds`."""
        end(self._children[broker], grace_seconds=grace_seconds)

    def start_broker(self, broker: int, *, wait: bool = True) -> None:
        """Start a broker that was killed or stopped, on the same ports with the same data.

        With `wait` it returns when that broker answers; without, at once: brokers without a quorum cannot answer.
        """
        self._spawn(broker)
        if wait:
            self._wait_until_up([broker])

    def restart(self, broker: int) -> None:
        """Stop and start `broker`."""
        self.stop_broker(broker)
        self.start_broker(broker)

    def become_another(self) -> None:
        """Kill every broker and start those of another cluster, which has nothing, at the same addresses."""
        for broker, child in self._children.items():
            end(child, grace_seconds=0)
            shutil.rmtree(self._data(broker))
        self._format_storage()
        for broker in range(len(self._nodes)):
            self._spawn(broker)
        self._wait_until_up(range(len(self._nodes)))

    # --- inside ----------------------------------------------------------------------------------------------

    def _format_storage(self) -> None:
        """Make every broker's storage as Kafka's tool does, which is run for the first one of a test run only: it takes
        as long as half a broker's start, and what it writes is the same for all but for their ids.
        """
        cluster_id = fresh_id()
        for broker in range(len(self._nodes)):
            properties = self._write_properties(broker)
            if _beginnings:
                write_storage(self._data(broker), cluster_id, broker, _beginnings[0])
            else:
                self._run_storage_tool(cluster_id, broker, properties)
                _beginnings.append(beginning_of(self._data(broker)))

    def _run_storage_tool(self, cluster_id: str, broker: int, properties: Path) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties))
        if spawn(command, log=self._log(broker)).wait(_START_TIMEOUT_SECONDS) != 0:
            raise RuntimeError(f"formatting the storage of broker {broker} failed:\n{self.log_text(broker)[-3000:]}")

    def _write_properties(self, broker: int) -> Path:
        path = self._directory / f"broker-{broker}.properties"
        write_properties(path, node_properties(broker, self._nodes, self._data(broker), self._security, self._options))
        return path

    def _spawn(self, broker: int) -> None:
        running = self._children.get(broker)
        if running is not None and running.poll() is None:
            raise RuntimeError(f"broker {broker} runs already, as {running.pid}")
        command = self._java("kafka.Kafka", str(self._write_properties(broker)))
        self._children[broker] = spawn(command, log=self._log(broker))

    def _java(self, *command: str) -> list[str]:
        logger = "-Dorg.slf4j.simpleLogger."
        logging = [
            f"{logger}showDateTime=true",
            f"{logger}dateTimeFormat=HH:mm:ss.SSS",
            f"{logger}defaultLogLevel=warn",
        ]
        return ["java", *self._java_options, *logging, "-cp", f"{self._libs}/*", *command]

    def _data(self, broker: int) -> Path:
        return self._directory / f"data-{broker}"

    def _log(self, broker: int) -> Path:
        return self._directory / f"broker-{broker}.log"

    def _wait_until_up(self, brokers: Sequence[int] | range) -> None:
        def dead() -> list[int]:
            return [broker for broker in brokers if self._children[broker].poll() is not None]

        # Each is asked for itself: the others would count a killed broker as alive for some seconds yet.
        asked = {broker: KafkaAdmin(f"{LOOPBACK}:{self._nodes[broker].internal}") for broker in brokers}

        def up_or_dead() -> bool:
            return bool(dead()) or all(broker in admin.live_brokers() for broker, admin in asked.items())

        wait_for(up_or_dead, timeout_seconds=_START_TIMEOUT_SECONDS, what=f"brokers {list(brokers)} answer")
        for broker in dead():
            cause = re.sub(r"(?m)^.* WARN .*\n", "", self.log_text(broker))
            raise RuntimeError(f"broker {broker} ended at its start:\n{cause[-3000:]}")


def _archived_classes(libs: Path) -> Path:
    """Return an archive of the classes that a broker loads, made once by a broker that starts and ends for it.

    With it a broker is up in less than 2 s instead of 5, and takes a third of the CPU.
    """
    archive = class_archive(libs)
    if archive.exists():
        return archive
    with alone_in(archive.parent):
        if not archive.exists():
            partial = archive.with_suffix(".partial")
            with KafkaCluster(java_options=(*JAVA_OPTIONS, f"-XX:ArchiveClassesAtExit={partial}")) as cluster:
                cluster.stop_broker(0, grace_seconds=_ARCHIVE_TIMEOUT_SECONDS)
            partial.rename(archive)
    return archive


def _stands_still(pid: int) -> bool:
    """Say whether all threads of the process are stopped: the signal reaches them one by one, see proc(5)."""
    states = [stat.read_text().rsplit(")", 1)[1].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state == "T" for state in states)
