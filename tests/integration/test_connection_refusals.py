"""A refused connection means the same whatever language the server speaks."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import psycopg
import pytest

from outboxd.errors import AccessDeniedError, ConfigError, DatabaseUnavailableError, OutboxdError
from outboxd.postgres.connections import connection_refusals
from outboxd.postgres.connections.engine import make_engine
from tests.support.postgres import PostgresMissingError, PostgresServer

SSL_REQUEST = 80877103


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_refusals, "_asked", {})


@pytest.fixture(scope="module")
def german_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that speaks German."""
    # The C locale's messages are translated by this variable alone: no locale has to be installed for it.
    with mock.patch.dict(os.environ, LANGUAGE="de"):
        try:
            server = PostgresServer({"lc_messages": "C.UTF-8"})
            server.start()
        except (PostgresMissingError, RuntimeError) as missing:
            pytest.skip(f"no server with this locale: {missing}")
    try:
        with server.connect() as connection:
            try:
                connection.execute("SELECT FROM absent")
            except psycopg.errors.UndefinedTable as error:
                if "existiert nicht" not in str(error):
                    pytest.skip("PostgreSQL's messages are not installed in German")
            connection.execute("CREATE DATABASE closed")
            connection.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
            connection.execute("CREATE ROLE joe LOGIN PASSWORD 'right'")
            connection.execute("CREATE ROLE bob LOGIN")
            connection.execute("CREATE ROLE ann LOGIN CONNECTION LIMIT 0")
        server.require_password("joe")
        yield server
    finally:
        server.destroy()


@contextmanager
def refusing(*refusals: tuple[str, str]) -> Iterator[tuple[str, list[int]]]:
    """A server that refuses each connection by the next (state, message), and goes on with the last."""
    served: list[int] = []

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                while struct.unpack("!II", peer.recv(8, socket.MSG_WAITALL))[1] == SSL_REQUEST:
                    peer.sendall(b"N")
                state, message = refusals[min(len(served), len(refusals) - 1)]
                served.append(1)
                fields = {"S": "ВАЖНО", "V": "FATAL", "C": state, "M": message, "R": "auth_failed"}
                body = b"".join(f"{name}{text}".encode() + b"\0" for name, text in fields.items()) + b"\0"
                peer.sendall(b"E" + struct.pack("!I", len(body) + 4) + body)
                peer.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        yield f"postgresql://joe:hush@127.0.0.1:{listener.getsockname()[1]}/d?sslmode=prefer", served
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def refusal(url: str) -> OutboxdError:
    with pytest.raises(OutboxdError) as told:
        make_engine(url).connect()
    return told.value


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ("joe:wrong@/postgres", AccessDeniedError, "does not let us in: .*Passwort-Authentifizierung"),
        ("nobody_here@/postgres", AccessDeniedError, "does not let us in: .*existiert nicht"),
        ("postgres@/absent", ConfigError, "no such database: .*existiert nicht"),
        ("bob@/closed", AccessDeniedError, "PostgreSQL refuses: .*closed"),
        ("ann@/postgres", DatabaseUnavailableError, "not available"),
    ],
)
def test_a_server_that_speaks_german_is_understood(
    german_server: PostgresServer, place: str, error: type[OutboxdError], words: str
) -> None:
    told = refusal(f"postgresql://{place.replace('@', f'@127.0.0.1:{german_server.port}')}")
    assert type(told) is error
    with pytest.raises(error, match=words):
        raise told
    assert "wrong" not in str(told)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("28P01", AccessDeniedError),
        ("28000", AccessDeniedError),
        ("42501", AccessDeniedError),
        ("3D000", ConfigError),
        ("53300", DatabaseUnavailableError),
        ("57P03", DatabaseUnavailableError),
        ("55000", DatabaseUnavailableError),
    ],
)
def test_the_state_decides_where_the_words_are_foreign(state: str, error: type[OutboxdError]) -> None:
    with refusing((state, 'пользователь "joe" не прошёл проверку C "99999"')) as (url, _):
        told = refusal(url)
    assert type(told) is error
    assert "не прошёл проверку" in str(told)
    assert "hush" not in str(told)


def test_a_refusal_is_asked_for_once() -> None:
    with refusing(("28P01", "nein")) as (url, served):
        engine = make_engine(url)
        for _ in range(3):
            with pytest.raises(AccessDeniedError):
                engine.connect()
        assert len(served) == 4


def test_another_refusal_than_that_which_is_asked_for_says_nothing_of_it() -> None:
    with refusing(("53300", "voll"), ("28P01", "nein")) as (url, _):
        assert type(refusal(url)) is DatabaseUnavailableError


def test_english_words_are_understood_without_asking() -> None:
    with refusing(("28P01", 'password authentication failed for user "joe"')) as (url, served):
        assert type(refusal(url)) is AccessDeniedError
        assert len(served) == 1


@pytest.mark.parametrize(
    ("state", "message", "remedy"),
    [
        ("53300", "sorry, too many clients already", "look at max_connections"),
        ("53300", 'too many connections for role "joe"', "CONNECTION LIMIT"),
        ("28000", 'no pg_hba.conf entry for host "h", user "joe", database "d", no encryption', "sslmode"),
        ("28000", 'pg_hba.conf rejects connection for host "h", user "joe", database "d"', "pg_hba.conf, and"),
        ("28000", 'role "joe" is not permitted to log in', "ALTER ROLE"),
        ("28P01", 'password authentication failed for user "joe"', "VALID UNTIL"),
        ("08P01", "query_wait_timeout", "default_pool_size"),
        ("08P01", "no more connections allowed (max_client_conn)", "PgBouncer"),
        ("57P03", "the database system is starting up", "and at the server"),
    ],
)
def test_a_refusal_is_told_with_what_to_do_about_it(state: str, message: str, remedy: str) -> None:
    with refusing((state, message)) as (url, _):
        told = str(refusal(url))
    assert message in told
    assert remedy in told.partition(message)[2]


def test_a_server_that_keeps_silent_is_told_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        told = refusal(f"postgresql://joe:hush@127.0.0.1:{port}/d?connect_timeout=2")
    assert type(told) is DatabaseUnavailableError
    assert f"server at 127.0.0.1, port {port}: connection timeout expired; it neither lets us in" in str(told)
    assert "hush" not in str(told)


def test_a_server_without_tls_is_told_with_sslmode(german_server: PostgresServer) -> None:
    told = str(refusal(f"postgresql://postgres@127.0.0.1:{german_server.port}/postgres?sslmode=require"))
    assert "does not support SSL" in told
    assert "look at sslmode of database.url" in told
