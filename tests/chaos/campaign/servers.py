"""What the campaign breaks: two PostgreSQL servers (a primary and its synchronous standby) and three brokers.

Every way of the daemons to a server leads through a proxy. Writers, the checker and the faults themselves go directly.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from confluent_kafka import KafkaException

from tests.support import kafka as kafka_support
from tests.support.children import free_ports, wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_jars import kafka_jars
from tests.support.postgres import SUPERUSER, PostgresServer
from tests.support.proxy import TcpProxy

_Result = TypeVar("_Result")

DATABASE = "campaign"
TOPIC_SECONDS_MAX = 90.0
DISK_MIB = 6_144
"""The size of the small disk of each PostgreSQL, where one can be mounted."""
_HEAP = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_SETTINGS = {
    "track_commit_timestamp": "on",
    "wal_keep_size": "256MB",
    "max_wal_size": "512MB",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_status_interval": "1s",
    "wal_sender_timeout": "10s",
    "shared_buffers": "256MB",
    "hot_standby": "on",
    "log_min_messages": "fatal",
    "log_min_error_statement": "fatal",
}


class Keeper:
    """A thread that lives as long as the campaign: children die with the thread that made them."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def do(self, action: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run the action there, and wait for its result."""
        return self._pool.submit(action, *arguments).result()

    def close(self) -> None:
        """End the thread; what it started must have ended."""
        self._pool.shutdown()


class DiskMissingError(RuntimeError):
    """No small disk can be mounted here: that takes root."""


class SmallDisk:
    """A directory of limited size, where one can be mounted; else an ordinary one that cannot be filled."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="outboxd-disk-"))
        self.path.chmod(0o755)
        atexit.register(self.close)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "tmpfs", str(self.path)]
        self.is_limited = (
            os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
        )

    def fill(self) -> int:
        """Take all that is left of it; return how many bytes that were."""
        if not self.is_limited:
            raise DiskMissingError("no small disk could be mounted: that takes root")
        size, step = 0, 64 << 20
        with self._balloon.open("wb") as balloon:
            # The server writes meanwhile: smaller and smaller pieces, until nothing fits.
            while step >= 4_096:
                try:
                    os.posix_fallocate(balloon.fileno(), size, step)
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise
                    step //= 4
                else:
                    size += step
        return size

    def empty(self) -> None:
        """Give it back."""
        self._balloon.unlink(missing_ok=True)

    @property
    def _balloon(self) -> Path:
        return self.path / "balloon"

    def close(self) -> None:
        """Take it away. Safe to call twice."""
        atexit.unregister(self.close)
        if self.is_limited:
            subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        shutil.rmtree(self.path, ignore_errors=True)


class Node(PostgresServer):
    """One PostgreSQL on a disk of its own, which may be made anew as the standby of another."""

    def __init__(self) -> None:
        super().__init__(_SETTINGS)
        self.disk = SmallDisk()
        self.port = free_ports(1)[0]

    def _initialise(self) -> None:
        former, tempfile.tempdir = tempfile.tempdir, str(self.disk.path)
        try:
            super()._initialise()
        finally:
            tempfile.tempdir = former

    def follow(self, primary: Node) -> None:
        """Throw away what is here, copy the primary, and follow it from now on."""
        self.stop("immediate")
        if self._root is None:
            self._initialise()
        assert self._root is not None
        data = self._root / "data"
        shutil.rmtree(data)
        self._run(
            "pg_basebackup", "--pgdata", data, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream",
            "--no-sync", "--dbname", f"host=127.0.0.1 port={primary.port} user={SUPERUSER}",
        )  # fmt: skip
        self._spawn()
        if not self._wait_until_ready():
            raise RuntimeError(f"the standby did not start:\n{self.log_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        with contextlib.suppress(RuntimeError):
            self.signal(signal.SIGKILL)
        self.stop("immediate")

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def destroy(self) -> None:
        super().destroy()
        self.disk.close()


class Postgres:
    """The primary, its standby, and a proxy before each."""

    def __init__(self) -> None:
        self.keeper = Keeper("postgres")
        self.nodes = [Node(), Node()]
        self._primary = 0
        self.timeline = 1
        self.has_standby = False
        self.proxies: list[TcpProxy] = []

    @property
    def primary(self) -> Node:
        return self.nodes[self._primary]

    @property
    def standby(self) -> Node:
        return self.nodes[1 - self._primary]

    @property
    def proxy(self) -> TcpProxy:
        """The one before the primary."""
        return self.proxies[self._primary]

    def start(self) -> None:
        """Start both."""
        self.keeper.do(self.primary.start)
        self.proxies = [TcpProxy(("127.0.0.1", node.port)) for node in self.nodes]
        with self.primary.connect() as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def attach_standby(self) -> None:
        """Make the standby anew from the primary; commits wait for it from then on."""
        self.synchronous("")
        self.keeper.do(self.standby.follow, self.primary)
        wait_for(self.is_guarded, timeout_seconds=30, what="the standby streams")
        self.synchronous("*")
        self.has_standby = True

    def is_guarded(self) -> bool:
        """Whether a standby streams."""
        with self.connect() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
        return row is not None and row[0] > 0

    def is_in_step(self) -> bool:
        """Whether commits wait for the standby, so that none is lost with the primary."""
        with self.connect() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone()
        return row is not None and row[0] > 0

    def synchronous(self, names: str) -> None:
        """Say which standbys commits wait for."""
        with self.primary.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make the standby the primary."""
        with self.standby.connect() as connection:
            connection.execute("SELECT pg_promote(true, 30)")
        self._primary = 1 - self._primary
        self.timeline += 1

    # --- Ways to it

    @property
    def proxied_url(self) -> str:
        """The daemons' way: both, by their proxies; whichever takes writes."""
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        return f"postgresql://{SUPERUSER}@{hosts}/{DATABASE}?target_session_attrs=read-write&connect_timeout=2"

    def connect(
        self, *, application: str = "campaign", statement_seconds: float = 20.0, autocommit: bool = True
    ) -> psycopg.Connection[Any]:
        """Connect directly to whichever takes writes; statements and waits for locks are bounded."""
        return psycopg.connect(
            host="127.0.0.1,127.0.0.1",
            port=",".join(str(node.port) for node in self.nodes),
            user=SUPERUSER,
            dbname=DATABASE,
            target_session_attrs="read-write",
            connect_timeout=2,
            application_name=application,
            options=f"-c statement_timeout={statement_seconds:g}s -c lock_timeout=5s",
            autocommit=autocommit,
            # A backend that was killed outright says nothing.
            tcp_user_timeout=15_000,
        )

    @contextlib.contextmanager
    def patient(self, seconds: float = 60.0) -> Iterator[psycopg.Connection[Any]]:
        """A connection for what has to be put right, however long the server is away."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                connection = self.connect()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        with connection:
            yield connection

    def close(self) -> None:
        """End and remove all."""
        for proxy in self.proxies:
            proxy.close()
        for node in self.nodes:
            node.destroy()
        self.keeper.close()


class Brokers(KafkaCluster):
    """Three brokers with small heaps, each behind a proxy."""

    def __init__(self) -> None:
        archive = kafka_support._archived_classes(kafka_jars())
        super().__init__(3, proxies=True, java_options=(*_HEAP, f"-XX:SharedArchiveFile={archive}"))
        self.keeper = Keeper("kafka")

    def begin(self) -> None:
        """Start all, from a thread that stays."""
        self.keeper.do(self.start)

    def stop(self) -> None:
        super().stop()
        self.keeper.close()

    def create_topic(
        self, name: str, partitions: int = 3, replication: int = 3, config: Mapping[str, str] | None = None
    ) -> str:
        """Make the topic, whatever the cluster is going through; return when every partition has a leader."""
        deadline = time.monotonic() + TOPIC_SECONDS_MAX
        while True:
            try:
                return super().create_topic(name, partitions, replication, config)
            except (KafkaException, TimeoutError) as trouble:
                is_there = "already exists" in str(trouble) or "TOPIC_ALREADY_EXISTS" in str(trouble)
                with contextlib.suppress(KafkaException):
                    if is_there and len(self.leaders(name)) == partitions:
                        return name
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def is_alive(self, broker: int) -> bool:
        """Whether its process lives."""
        return self._children[broker].poll() is None

    def bring_back(self, *brokers: int) -> None:
        """Start those that do not run, and wait until each answers."""
        for broker in brokers:
            if not self.is_alive(broker):
                self.keeper.do(lambda at=broker: self.start_broker(at, wait=False))
        self._wait_until_up(brokers)

    def ping(self, broker: int, *, proxied: bool, timeout_seconds: float = 1.0) -> float | None:
        """Seconds that a question for its versions takes; None: no answer in time, or a reset."""
        node = self._nodes[broker]
        port = self.proxies[broker].port if proxied else node.internal
        return ping(port, _API_VERSIONS, timeout_seconds)


_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Kafka's ApiVersions in version 0, without a client's name."""
SSL_REQUEST = struct.pack(">ii", 8, 80_877_103)
"""What every PostgreSQL answers with one byte, before any authentication."""


def ping(port: int, question: bytes, timeout_seconds: float) -> float | None:
    """Connect, ask, and return the seconds until the first byte of an answer; None when there is none in time."""
    began_at = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds) as connection:
            connection.sendall(question)
            answered = bool(connection.recv(1))
    except OSError:
        return None
    return time.monotonic() - began_at if answered else None
