"""The engine: SQLAlchemy's pool over psycopg 3, with bounded waits and refusals that people understand.

Nothing here is sent as a startup parameter that PgBouncer would refuse: the session's limits are set by a statement
after connecting, and named prepared statements are off unless asked for. Behind a pooler a session is nobody's own:
there nothing is set that would stay on a connection which others use next (`docs/operations/pgbouncer.md` says how the
role gets its limits instead). The style of dates and the encoding are PgBouncer's to keep apart, client by client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine, create_engine

from outboxd.errors import ConfigError
from outboxd.postgres.connections.failures import explained, unusable_url
from outboxd.postgres.connections.lock_limit import milliseconds

CONNECT_TIMEOUT_SECONDS = 5
#: A peer that is gone without a word is noticed within about this time, by keepalives or by unanswered data.
SILENCE_SECONDS_MAX = 15

_DEFAULTS: dict[str, str | int | None] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": SILENCE_SECONDS_MAX * 1000,
    # A role, a database or the environment may ask for one that lacks characters of rows.
    "client_encoding": "UTF8",
}


class NoAnswerError(psycopg.OperationalError):
    """The connection stands, and nothing came of a statement for too long."""


class Driver(psycopg.Connection[tuple[object, ...]]):
    """psycopg's connection, which knows whether a pooler stands between, and need not wait for an answer for ever."""

    is_pooled = False
    answer_seconds: float | None = None
    """The longest wait for an answer. A limit of the server's own does not count how long a pooler lets a statement
    wait for a connection of the server.
    """

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        """As psycopg has it; a connection that owes its answer for too long is closed."""
        if self.answer_seconds is None:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_answered_within(self.answer_seconds, gen), *args, **options)
        except NoAnswerError:
            self.close()
            raise

    def look_for_pooler(self) -> None:
        """A pooler names a process of its own making when it lets a client in; the server knows the real one."""
        row = self.execute("SELECT pg_backend_pid()").fetchone()
        self.is_pooled = row is None or row[0] != self.info.backend_pid


def _answered_within(seconds: float, gen: PQGen[RV]) -> PQGen[RV]:
    """What psycopg runs, which it tells every moment whether something came; ended once that took too long."""
    until = time.monotonic() + seconds
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() >= until:
                raise NoAnswerError(f"we were let in, and a statement got no answer for {seconds:g} s")
            awaited = gen.send(ready)
    except StopIteration as done:
        result: RV = done.value
        return result


def make_engine(
    url: str,
    password: str | Callable[[], str] = "",
    *,
    application_name: str = "outboxd",
    lock_timeout_seconds: float = 5.0,
    idle_in_transaction_timeout_seconds: float = 5.0,
    statement_timeout_seconds: float | None = None,
    first_answer_seconds: float | None = None,
    prepare_threshold: int | None = None,
    pool_size: int = 4,
) -> Engine:
    """Return an engine whose connections are in autocommit mode; nothing is connected yet.

    What the URL says itself (any of libpq's parameters, several hosts among them) wins over the defaults here.

    Args:
        url: `postgresql://…`, also with `+psycopg`.
        password: wins over one in the URL, unless it is empty; a function is asked for each new connection, since
            passwords change.
        application_name: how the sessions are called in `pg_stat_activity`.
        lock_timeout_seconds: the longest wait for a lock.
        idle_in_transaction_timeout_seconds: PostgreSQL ends a session that is idle in a transaction for longer.
        statement_timeout_seconds: the longest statement; None leaves it to what the role or the database says.
        first_answer_seconds: the longest wait for the answer to what is asked first on a new connection, where somebody
            waits who has to know; behind a pooler later statements are waited for as long as they may take, too. None,
            for those who keep their place in a pooler's queue, is without limit.
        prepare_threshold: executions after which psycopg prepares a statement; None, which works with every
            PgBouncer, is never.
        pool_size: connections at most; a further one waits for 10 s.

    Raises:
        ConfigError: the URL cannot be read. Connecting raises DatabaseUnavailableError, AccessDeniedError or
            ConfigError with a sentence, instead of the driver's errors.
    """

    def conninfo() -> str:
        present = password if isinstance(password, str) else password()
        return connection_string(url, present, application_name=application_name)

    conninfo()
    limits = [
        None if seconds is None else milliseconds(seconds)
        for seconds in (lock_timeout_seconds, idle_in_transaction_timeout_seconds, statement_timeout_seconds)
    ]

    def connect() -> Driver:
        with (
            explained(),
            closed_on_failure(
                open_driver(conninfo(), prepare_threshold=prepare_threshold, answer_seconds=first_answer_seconds)
            ) as connection,
        ):
            connection.look_for_pooler()
            if connection.is_pooled:
                connection.prepare_threshold = None
            else:
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, false),"
                    " set_config('idle_in_transaction_session_timeout', %s, false),"
                    " set_config('statement_timeout', coalesce(%s::text, current_setting('statement_timeout')), false),"
                    # What a role or a database may ask of applications. A statement that is a serializable transaction
                    # could make one of theirs fail; one that waited for a table's new version would see none of it.
                    " set_config('default_transaction_isolation', 'read committed', false),"
                    " set_config('idle_session_timeout', '0', false),"
                    # A statement that may walk millions of rows looks dear, though its limit ends it after a few
                    # thousand: the server would compile it anew each time it runs.
                    " set_config('jit', 'off', false)",
                    limits,
                )
            if first_answer_seconds is not None:
                connection.answer_seconds = statement_timeout_seconds if connection.is_pooled else None
            return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        # Saves a look-up of the type on every new connection.
        use_native_hstore=False,
        # Errors would else show the rows' keys and payloads.
        hide_parameters=True,
    )


def open_driver(
    conninfo: str,
    *,
    autocommit: bool = True,
    prepare_threshold: int | None = None,
    answer_seconds: float | None = None,
) -> Driver:
    """Return a new connection. Every one of outboxd's is made here. `answer_seconds` is told in `Driver`.

    Raises:
        ConfigError: the driver cannot use the connection string, or the database is not in UTF-8.
        psycopg.Error: it cannot be had; see `failures.explained`.
    """
    try:
        connection = Driver.connect(conninfo, autocommit=autocommit, prepare_threshold=prepare_threshold)
    except psycopg.ProgrammingError as error:
        # With no server asked yet, it is the string that is wrong.
        if error.sqlstate:
            raise
        raise unusable_url(" ".join(str(error).split())) from None
    except psycopg.errors.ConnectionTimeout as error:
        given = conninfo_to_dict(conninfo)
        # The driver names the servers where it tried several.
        if "," in str(given.get("host") or given.get("hostaddr") or ""):
            raise
        place = f"server at {given.get('host') or given.get('hostaddr')}, port {given.get('port') or 5432}"
        raise psycopg.errors.ConnectionTimeout(f"{place}: {error}") from error
    connection.answer_seconds = answer_seconds
    with closed_on_failure(connection):
        refuse_encoding(connection.info.parameter_status("server_encoding"), connection.info.dbname)
        # What a role, a database or the environment asks of people's sessions; the driver reads ISO dates only.
        if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            connection.execute("SET DateStyle = 'ISO'")
        # One zone in all that is told, whatever theirs is: some have seconds in their offsets, or the driver does not
        # know them.
        if connection.info.parameter_status("TimeZone") != "UTC":
            connection.execute("SET TimeZone = 'UTC'")
    return connection


@contextmanager
def closed_on_failure(connection: Driver) -> Iterator[Driver]:
    """Within it, an error closes the connection."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def refuse_encoding(encoding: str | None, database: str) -> None:
    """Refuse a database that is not in UTF-8. Raises ConfigError."""
    # What a pooler does not tell is let pass.
    if encoding not in (None, "UTF8"):
        raise ConfigError(
            f"the database {database!r} is encoded in {encoding}, and outboxd needs UTF8, as Kafka has it: make one "
            "WITH ENCODING 'UTF8' TEMPLATE template0, and move the tables there with pg_dump"
        )


def connection_string(url: str, password: str = "", *, application_name: str = "outboxd") -> str:
    """Return libpq's connection string for `url`, with timeouts and keepalives where it says nothing itself, and with
    `password` where that is not empty.

    Raises:
        ConfigError: libpq cannot read the URL; the message does not repeat it, since it may hold a password.
    """
    try:
        given: dict[str, str | int | None] = {
            **conninfo_to_dict(url.replace("postgresql+psycopg://", "postgresql://", 1))
        }
    except psycopg.ProgrammingError:
        raise ConfigError(
            "database.url cannot be read by PostgreSQL's client library: look at the port, and at special characters "
            "in names and password, which are written as %XX"
        ) from None
    if password:
        # The configuration, which knows how the two rank, gives none where the URL's own is to win.
        given["password"] = password
    return make_conninfo("", **{**_DEFAULTS, "application_name": application_name, **given})
