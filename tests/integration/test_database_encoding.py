"""A database that is not in UTF-8 is refused in a sentence by every command that connects."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import Database
from tests.support.shell import Shell, shell_on


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[tuple[Database, str]]:
    """An empty database of that encoding."""
    name = f"encoded_{uuid.uuid4().hex[:12]}"
    with postgres_server.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    try:
        yield Database(postgres_server, name), request.param
    finally:
        with postgres_server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def shell(encoded: tuple[Database, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return shell_on(encoded[0], monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")


@pytest.mark.parametrize(
    "command", ["migrate", "status", "send t", "pause t", "dead list", "audit"]
)  # fmt: skip
def test_a_command_refuses_a_database_that_is_not_in_utf_8(
    shell: Shell, encoded: tuple[Database, str], command: str
) -> None:
    answer = shell(*command.split())
    assert answer.code == 78, answer.err
    assert f"the database {encoded[0].name!r} is encoded in {encoded[1]}, and outboxd needs UTF8" in answer.err


def test_a_daemon_does_not_start_on_it(encoded: tuple[Database, str], tmp_path: Path) -> None:
    sections = {"database": {"url": encoded[0].url}, "kafka": {"bootstrap.servers": "127.0.0.1:1"}}
    ended = DaemonProcess(tmp_path, sections).run()
    assert ended.code == 78, ended.err
    assert f"is encoded in {encoded[1]}, and outboxd needs UTF8" in ended.err


def test_check_reports_it_as_a_problem(shell: Shell, encoded: tuple[Database, str]) -> None:
    answer = shell("check", "--json")
    assert answer.code == 78
    (told,) = [finding for finding in answer.document["findings"] if finding["area"] == "database"]
    assert told["weight"] == "misconfigured"
    assert f"is encoded in {encoded[1]}" in told["message"]
