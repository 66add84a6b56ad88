"""The PostgreSQL server of the tests can be stopped, frozen and found again, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PostgresServer


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer({"max_connections": "20"})
    try:
        server.start()
        yield server
    finally:
        server.destroy()


def test_what_is_committed_outlives_an_immediate_restart_on_the_same_port(server: PostgresServer) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    url, pid = server.url(), server.pid
    server.restart("immediate")
    assert server.url() == url
    assert server.pid != pid
    with server.connect() as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        assert connection.execute("SHOW max_connections").fetchone() == ("20",)


def test_a_frozen_server_answers_nothing_until_it_goes_on(server: PostgresServer) -> None:
    with server.connect() as connection:
        server.signal(signal.SIGSTOP)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(server.dsn(), connect_timeout=2)
        server.signal(signal.SIGCONT)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_destroy_ends_the_server_even_frozen_and_removes_its_files(server: PostgresServer) -> None:
    pid, root = server.pid, server._root
    assert root is not None
    server.signal(signal.SIGSTOP)
    server.destroy()
    assert not root.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_never_runs_as_root(server: PostgresServer) -> None:
    owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner == (pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid())


def test_the_server_ends_with_a_test_run_that_is_killed() -> None:
    script = (
        "import sys, time\nfrom tests.support.postgres import PostgresServer\n"
        "server = PostgresServer()\nserver.start()\nprint(server.pid, server._root, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as run:
        assert run.stdout is not None
        pid, root = run.stdout.readline().split()
        run.kill()
    try:
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, f"the server {pid} lives on"
            time.sleep(0.05)
    finally:
        shutil.rmtree(root)
