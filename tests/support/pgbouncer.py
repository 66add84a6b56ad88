"""A real PgBouncer, in transaction mode unless told otherwise, before a test's PostgreSQL, as a child process."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

from tests.support.children import end, free_ports, spawn, wait_for
from tests.support.postgres import PostgresServer
from tests.support.rig import Rig

START_SECONDS_MAX = 15.0


class PgBouncerMissingError(RuntimeError):
    """No PgBouncer is on this machine; the message says how to get it."""


def find_pgbouncer() -> str:
    """The program's path.

    Raises:
        PgBouncerMissingError: there is none.
    """
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise PgBouncerMissingError("PgBouncer is missing: apt-get install pgbouncer")
    return found


class PgBouncer:
    """Pools what `pool_mode` says over `server_connections` connections to a server that trusts everybody."""

    def __init__(
        self, server: PostgresServer, directory: Path, *, pool_mode: str = "transaction", server_connections: int = 4
    ) -> None:
        self._program = find_pgbouncer()
        self._server = server
        self._directory = directory
        self._pool_mode, self._server_connections = pool_mode, server_connections
        self.port = free_ports(1)[0]
        self._child: subprocess.Popen[bytes] | None = None

    def url(self, dbname: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}"

    def __enter__(self) -> Self:
        users, config = self._directory / "users.txt", self._directory / "pgbouncer.ini"
        users.write_text('"postgres" ""\n')
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server.port} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {self._pool_mode}\n"
            f"default_pool_size = {self._server_connections}\nmax_client_conn = 200\nserver_tls_sslmode = disable\n"
            # Else it refuses every login for 15 s after one that failed.
            "server_login_retry = 1\n"
        )
        command = [self._program, str(config)]
        if os.geteuid() == 0:
            # It refuses to run as root, and becomes this user by itself.
            nobody = pwd.getpwnam("nobody")
            for path in (self._directory, users, config):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
                path.chmod(0o755 if path.is_dir() else 0o644)
            command = [self._program, "--user=nobody", str(config)]
        self._child = spawn(command, log=self._directory / "pgbouncer.log")
        try:
            wait_for(self._answers, timeout_seconds=START_SECONDS_MAX, what="PgBouncer answers")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _answers(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, (self._directory / "pgbouncer.log").read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            end(self._child, grace_seconds=0)


@contextmanager
def pooler_of(
    server: PostgresServer, *, pool_mode: str = "transaction", server_connections: int = 4
) -> Iterator[PgBouncer]:
    """A running one before this server; where there is none, the test is skipped, or fails in CI."""
    # Not under pytest's own directory, which the user that it runs as cannot enter.
    with tempfile.TemporaryDirectory(prefix="outboxd-pgbouncer-") as directory:
        try:
            pooler = PgBouncer(server, Path(directory), pool_mode=pool_mode, server_connections=server_connections)
        except PgBouncerMissingError as missing:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(missing))
        with pooler:
            yield pooler


@contextmanager
def pooled(rig: Rig) -> Iterator[PgBouncer]:
    """Within this the rig's daemons come by a PgBouncer."""
    with pooler_of(rig.database.server) as pooler:
        rig.database_url = pooler.url(rig.database.name)
        yield pooler


@contextmanager
def on_way(rig: Rig, way: str) -> Iterator[Rig]:
    """Within this the rig's daemons go straight to PostgreSQL (`direct`), or by a PgBouncer in transaction mode
    (`pooled`), where no session is a daemon's own; writers and tests always go straight.
    """
    if way == "direct":
        yield rig
        return
    with pooled(rig):
        yield rig
