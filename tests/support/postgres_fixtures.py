"""Pytest fixtures of the PostgreSQL server: one server a run, one fresh database a test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from outboxd.postgres.migrate import upgrade
from tests.support.postgres import SUPERUSER, PostgresMissingError, PostgresServer

TEMPLATE = "outboxd_template"
SCHEMA = "outboxd"
BY_FILE = "STRATEGY FILE_COPY"
"""How databases are copied: not page by page through the log, which takes a third more, for hundreds of them."""


@dataclass(frozen=True)
class Database:
    """A database of a test: made empty or migrated, dropped after it."""

    server: PostgresServer
    name: str
    schema: str = SCHEMA

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def url_as(self, user: str) -> str:
        return self.server.url(self.name, user)

    def connect(self, user: str = SUPERUSER, *, autocommit: bool = True) -> psycopg.Connection[tuple[object, ...]]:
        return self.server.connect(self.name, user, autocommit=autocommit)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL, shared by the whole run. A test that stops or freezes it must bring it back."""
    try:
        server = PostgresServer()
    except PostgresMissingError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database to clone; nobody may stay connected to it."""
    with postgres_server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
    upgrade(postgres_server.url(TEMPLATE), SCHEMA)
    return TEMPLATE


@pytest.fixture
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    """A fresh database with the tables of outboxd in the schema `outboxd`."""
    with fresh_database(postgres_server, migrated_template) as made:
        yield made


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """A fresh database without anything of outboxd."""
    with fresh_database(postgres_server, "template0") as made:
        yield made


@contextmanager
def fresh_database(server: PostgresServer, template: str) -> Iterator[Database]:
    """A database of its own, a copy of `template`, for as long as it is wanted."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {BY_FILE}')
    try:
        yield Database(server, name)
    finally:
        with server.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
