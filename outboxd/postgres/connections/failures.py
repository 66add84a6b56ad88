"""What PostgreSQL's refusals mean to outboxd: unavailable, not allowed, or misconfigured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from outboxd.errors import (
    AccessDeniedError,
    ConfigError,
    DatabaseUnavailableError,
    OutboxdError,
    SchemaError,
    UsageError,
)
from outboxd.postgres.connections.connection_refusals import refusal_state

# A connection that is refused has no SQLSTATE in libpq, only the server's words, which mostly are English.
_REFUSED = ("password authentication failed", "no pg_hba.conf entry", "no password supplied", "authentication failed")
_NAMED = ("role", "database")
# What somebody has to mend, of the states with which a connection is refused: not let in, not granted, no database.
_TO_MEND = ("28", "42501", "3D000")
# What the client library itself says of the connection's parameters, before it looks for a server.
_MISUSED = (
    "connection option", "connection is bad: invalid ", "connection is bad: weak sslmode ",
    "could not parse network address", "could not match ", "definition of service ", "service file ",
    "require_auth method ",
)  # fmt: skip
# What to do about a connection that came to nothing, by words of the library or the server; else as `_LOOK` says.
_LOOK = "look at database.url, and at the server"
STANDBY_REMEDY = "name the primary, or several hosts with target_session_attrs=read-write, in database.url"
_READ_ONLY = "25006"
_READ_ONLY_REMEDY = f"what answers is a standby, or read-only for this role: {STANDBY_REMEDY}"
_REMEDIES = (
    (
        # The client library says no more of it.
        ("certificate verify failed",),
        (
            "the server's certificate is of another authority than sslrootcert of database.url has, or not valid at "
            "this time: look at it with `openssl s_client -starttls postgres`, and at sslmode and sslrootcert"
        ),
    ),
    (
        ("does not match host name", "root certificate file"),
        "look at sslmode and sslrootcert of database.url, and at the server's certificate",
    ),
    (("does not support SSL",), "look at sslmode of database.url, and at ssl of the server"),
    (("invalid response to SSL negotiation",), "what answers there is no PostgreSQL: look at the port in database.url"),
    (
        ("connection timeout expired",),
        "it neither lets us in nor refuses: look at host and port in database.url, at firewalls, and at the server",
    ),
    (
        ("too many connections for role", "too many clients", "connection slots are reserved"),
        "look at max_connections, at CONNECTION LIMIT of role and database, and in pg_stat_activity at who has them",
    ),
    (
        # The server tells its own log alone that a password is too old. Where sslmode allows it, the library tries once
        # more with or without TLS, for which pg_hba.conf may have no entry: what is said of the password is the cause.
        ("password authentication failed",),
        "look at database.url and its password, and at the role's VALID UNTIL",
    ),
    (
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        "look at the server's pg_hba.conf, and at sslmode of database.url",
    ),
    (("is not permitted to log in",), "ALTER ROLE … LOGIN, or use a role that may"),
    (
        # The client library's own words, where nothing names a role and the system has no name for this process's user.
        ("local user with ID",),
        "name the role in database.url, as in postgresql://USER@HOST/DATABASE",
    ),
    (
        ("query_wait_timeout", "no more connections allowed"),
        (
            "PgBouncer has no connection free: look at its pool_mode, its default_pool_size, max_client_conn and "
            "query_wait_timeout, and with SHOW POOLS at who has them"
        ),
    ),
    (
        ("a statement got no answer",),
        (
            "where a pooler stands between, it has no connection free: look at its pool_mode and default_pool_size, "
            "and with SHOW POOLS at who has them; else look at the server"
        ),
    ),
    (
        # The client library's own words, where the URL asks for a primary and none is among those that answer.
        ("session is read-only", "server is in hot standby mode"),
        _READ_ONLY_REMEDY,
    ),
)
# A table, function, column or schema that is not there.
_MISSING = ("42P01", "42883", "42703", "3F000")
# A table, type or index, a function, or another object that is to be made, and is there.
_TAKEN = ("42P07", "42723", "42710")
# Connection lost, out of resources, shutting down or starting, a standby that cannot write, a lock that took too long.
_UNAVAILABLE = ("08", "53", "57", _READ_ONLY)
# A lock, or time, ran out, which is no reason to look at the way to the server.
_WAITED = {
    "55P03": (
        "did not give a lock in time",
        "another session has it: look for it in pg_locks and pg_stat_activity, and end its transaction",
    ),
    "57014": (
        "ended a statement that took too long, or that somebody cancelled",
        "look at what keeps the server busy, at transactions that are open for long and at the role's limits",
    ),
    "25P03": (
        "ended a session whose transaction rested for too long",
        "repeat it where this machine was busy, or raise the role's idle_in_transaction_session_timeout",
    ),
}
# A value, a constraint, a trigger, a deadlock, a damaged page; a lock or a time limit may be a row's as well.
_OF_A_ROW = ("21", "22", "23", "27", "38", "39", "40", "44", "55", "P0", "XX", "57014")

# A text too long for its column, a constraint, a trigger: of tables that people change as they need them.
_OF_A_VALUE = ("22001", "23", "27", "38", "39", "44", "P0")
# A deadlock, most often.
_OF_A_RIVAL = "40"


def explain(error: psycopg.Error) -> OutboxdError | None:
    """The error of ours that this one of the driver means; None for what only a bug explains."""
    state = error.sqlstate or _refused_as(error)
    words = _words(error)
    if state == "42501":
        return AccessDeniedError(f"PostgreSQL refuses: {words}; grant it, or use a role that may")
    if state.startswith("28") or any(phrase in words for phrase in _REFUSED) or _is_missing(words, "role"):
        remedy = _remedy(words, "look at database.url and its password")
        return AccessDeniedError(f"PostgreSQL does not let us in: {words}; {remedy}")
    if not state and any(phrase in words for phrase in _MISUSED):
        return unusable_url(words)
    if state == "3D000" or (not state and _is_missing(words, "database")):
        return ConfigError(f"PostgreSQL has no such database: {words}; look at database.url")
    if state in _WAITED:
        return DatabaseUnavailableError(f"PostgreSQL {_WAITED[state][0]}: {words}{_place(error)}; {_WAITED[state][1]}")
    if state.startswith(_UNAVAILABLE) or (not state and isinstance(error, psycopg.OperationalError)):
        usual = _READ_ONLY_REMEDY if state == _READ_ONLY else _LOOK
        return DatabaseUnavailableError(f"PostgreSQL is not available: {words}; {_remedy(words, usual)}")
    return _of_the_schema(state, words)


def _remedy(words: str, usual: str) -> str:
    return next((remedy for phrases, remedy in _REMEDIES if any(each in words for each in phrases)), usual)


def _words(error: psycopg.Error) -> str:
    """Return what the server says of the error alone; the whole text quotes the statement too.

    The client library's own advice, in lines that begin with a tab, would run into the remedy, which says more.
    """
    said = error.diag.message_primary or "\n".join(line for line in str(error).split("\n") if line[:1] != "\t")
    return " ".join(said.split())


def _of_the_schema(state: str, words: str) -> SchemaError | None:
    if state in _MISSING:
        return SchemaError(
            f"the schema is not what this version of outboxd needs: {words}; "
            "run `outboxd migrate`, or look at database.schema and outbox.table"
        )
    if state in _TAKEN:
        return SchemaError(
            f"the schema has already what is to be made there: {words}; where another program made it, choose another "
            "database.schema. Where it is outboxd's own, as a dump without data restores it, insert its revision into "
            "alembic_version (version_num) in that schema, as the database that was dumped has it"
        )
    return None


def unusable_url(words: str) -> ConfigError:
    """The error for a connection string that the driver or its library refuses with these words."""
    return ConfigError(
        f"PostgreSQL's client library cannot use database.url: {words}; look at its parameters, and at "
        "variables of the environment whose names begin with PG"
    )


def is_refusal(error: psycopg.Error) -> bool:
    """Say whether the server refused a statement for a row's or a lock's sake: another of other rows may pass. A
    statement in autocommit mode wrote nothing then.
    """
    return (error.sqlstate or "").startswith(_OF_A_ROW)


def _place(error: psycopg.Error) -> str:
    """Which row it was, or where in a trigger, as the server says it."""
    lines = (error.diag.context or "").splitlines()
    return f" {lines[0]}" if lines else ""


def in_words(error: Exception) -> str:
    """Return one line that tells people of the error, with the remedy where one is known."""
    ours = explain(error) if isinstance(error, psycopg.Error) else error if isinstance(error, OutboxdError) else None
    said = " ".join(str(ours or error).split())
    return said if ours is not None or isinstance(error, psycopg.Error) else f"{type(error).__name__}: {said}"


def _refused_as(error: psycopg.Error) -> str:
    """The state of a refused connection whose words nobody here knows, where it says more than these."""
    if any(phrase in str(error) for phrase in _REFUSED) or any(_is_missing(str(error), kind) for kind in _NAMED):
        return ""
    state = refusal_state(error)
    return state if state.startswith(_TO_MEND) else ""


def _is_missing(words: str, kind: str) -> bool:
    return f'FATAL: {kind} "' in words and "does not exist" in words


@contextmanager
def explained() -> Iterator[None]:
    """Within it, errors of the driver that people can mend are raised as ours, with what to do about them."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailableError(
            "PostgreSQL is not available: all connections of this process are in use, and none became free in time; "
            "look at pg_stat_activity for what they wait for"
        ) from error
    except (psycopg.Error, DBAPIError) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        ours = explain(original) if isinstance(original, psycopg.Error) else None
        if ours is None:
            raise
        raise ours from error


@contextmanager
def told() -> Iterator[None]:
    """As `explained`, for a command: it also tells what the server refuses for the sake of values or of another
    session, where the relay looks for the row that is to blame.
    """
    try:
        with explained():
            yield
    except DBAPIError as error:
        ours = _refusal(error.orig) if isinstance(error.orig, psycopg.Error) else None
        if ours is None:
            raise
        raise ours from error


def _refusal(error: psycopg.Error) -> OutboxdError | None:
    state, words = error.sqlstate or "", _words(error)
    if state.startswith(_OF_A_VALUE):
        place = f" ({found.strip()})" if (found := _place(error)) else ""
        return UsageError(f"PostgreSQL refuses: {words}{place}; look at the constraints and triggers of the table")
    if state.startswith(_OF_A_RIVAL):
        return DatabaseUnavailableError(
            f"PostgreSQL ended a statement for the sake of another session: {words}; that statement changed "
            "nothing, so repeat the command"
        )
    return None
