"""The engine against a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from sqlalchemy import text

from outboxd.errors import AccessDeniedError, ConfigError, DatabaseUnavailableError
from outboxd.postgres.connections.engine import connection_string, make_engine
from outboxd.postgres.connections.failures import explained
from tests.support.postgres_fixtures import Database


def test_sessions_have_limits_a_name_and_no_transaction_of_their_own(database: Database) -> None:
    engine = make_engine(database.url, lock_timeout_seconds=1.5, idle_in_transaction_timeout_seconds=2.25)
    try:
        with engine.connect() as connection:
            shown = [
                connection.scalar(text(f"SHOW {name}"))
                for name in ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout")
            ]
            assert shown == ["1500ms", "2250ms", "0"]
            assert connection.scalar(text("SELECT current_setting('application_name')")) == "outboxd"
            connection.execute(text("CREATE TABLE made (id int)"))
            # Autocommit: another session sees it while this one is still open.
            with database.connect() as other:
                assert other.execute("SELECT count(*) FROM made").fetchone() == (0,)
    finally:
        engine.dispose()


def test_what_a_database_asks_of_applications_is_not_taken_over(database: Database) -> None:
    with database.connect() as sql:
        sql.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable'")
        sql.execute(f"ALTER DATABASE {database.name} SET idle_session_timeout = '200ms'")
    engine = make_engine(database.url)
    try:
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_setting('transaction_isolation')")) == "read committed"
            assert connection.scalar(text("SHOW idle_session_timeout")) == "0"
    finally:
        engine.dispose()


def test_times_and_all_characters_are_read_whatever_style_and_encoding_a_database_asks_for(database: Database) -> None:
    with database.connect() as sql:
        sql.execute(f"ALTER DATABASE {database.name} SET DateStyle = 'SQL, DMY'")
        sql.execute(f"ALTER DATABASE {database.name} SET client_encoding = 'LATIN1'")
    engine = make_engine(database.url)
    try:
        with engine.connect() as connection:
            read = connection.execute(
                text("SELECT timestamptz '2026-11-30 04:42:50+00', U&'\\20AC', date '01/02/2026'")
            )
            assert tuple(read.one()) == (datetime(2026, 11, 30, 4, 42, 50, tzinfo=UTC), "€", date(2026, 2, 1))
    finally:
        engine.dispose()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "<-03>+3"])
def test_times_are_told_in_utc_whatever_zone_a_database_asks_for(
    database: Database, caplog: pytest.LogCaptureFixture, zone: str
) -> None:
    with database.connect() as sql:
        sql.execute(f"ALTER DATABASE {database.name} SET TimeZone = '{zone}'")
    engine = make_engine(database.url)
    try:
        with engine.connect() as connection:
            told = connection.scalar(text("SELECT timestamptz '0001-01-02 00:00:00+00'"))
            assert (told.isoformat(), told.tzname()) == ("0001-01-02T00:00:00+00:00", "UTC")
    finally:
        engine.dispose()
    # The driver warns, on a command's standard error too, of a zone that it does not know.
    assert caplog.messages == []


def test_no_statement_is_compiled_however_long_the_backlog_looks(database: Database) -> None:
    engine = make_engine(database.url)
    try:
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW jit")) == "off"
            connection.execute(text("SET jit_above_cost = 0"))
            plan = connection.scalars(text("EXPLAIN SELECT sum(n) FROM generate_series(1, 10) AS n")).all()
            assert not any("JIT" in line for line in plan)
            connection.execute(text("SET jit = on"))
            plan = connection.scalars(text("EXPLAIN SELECT sum(n) FROM generate_series(1, 10) AS n")).all()
            assert any("JIT" in line for line in plan) == connection.scalar(text("SELECT pg_jit_available()"))
    finally:
        engine.dispose()


def test_a_pool_whose_connections_are_all_in_use_is_put_into_words(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(database.url, pool_size=1)
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    try:
        words = "all connections of this process are in use"
        with engine.connect(), pytest.raises(DatabaseUnavailableError, match=words), explained():
            engine.connect()
    finally:
        engine.dispose()


def test_what_the_url_says_wins_over_the_defaults() -> None:
    told = connection_string("postgresql+psycopg://u:own@h/d?connect_timeout=33&application_name=mine")
    assert "connect_timeout=33" in told
    assert "application_name=mine" in told
    assert "password=own" in told
    assert "keepalives=1" in told


def test_a_password_beside_the_url_wins_over_that_in_it() -> None:
    told = connection_string("postgresql://u:own@h/d", "other")
    assert "password=other" in told
    assert "own" not in told


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql://u:hush@127.0.0.1:1/d", DatabaseUnavailableError, "PostgreSQL is not available"),
        ("postgresql://u:hush@127.0.0.1:none/d", ConfigError, "database.url"),
        ("postgresql://u:hush%zz@127.0.0.1/d", ConfigError, "special characters"),
    ],
)
def test_a_refused_connection_is_a_sentence_without_the_password(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        make_engine(url).connect()
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(
    "parameter",
    [
        "connect_timeout=abc",
        "sslmode=bogus",
        "require_auth=none,none",
        "service=bogus",
        "hostaddr=bogus",
        "port=99999",
        "port=1,2",
    ],
)
def test_what_the_client_library_cannot_use_is_misconfigured_and_not_unavailable(parameter: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot use database\.url"):
        make_engine(f"postgresql://u:hush@127.0.0.1/d?{parameter}").connect()


def test_a_missing_database_and_a_missing_role_are_told_apart(database: Database) -> None:
    with pytest.raises(ConfigError, match="no such database"):
        make_engine(database.server.url("absent")).connect()
    with pytest.raises(AccessDeniedError, match="does not let us in"):
        make_engine(database.url_as("nobody_here")).connect()
