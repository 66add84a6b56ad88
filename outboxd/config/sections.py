"""The sections of the configuration: every setting with its type, default, bounds and sentence, in this one place.

A setting's contract name (in files, environment and flags) is its field's name, without the `_seconds` that a
duration's field ends in: `relay.sweep_interval` is `settings.relay.sweep_interval_seconds`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from outboxd.config.kinds import Choice, Duration, Flag, Size, Text, Whole
from outboxd.config.libpq import url_problem
from outboxd.config.redaction import secrets_of_url
from outboxd.config.section import Contradiction, Section, option
from outboxd.loopback import is_loopback

Confirm = Literal["callback", "each", "none"]
OnDeadLetter = Literal["continue", "hold-key"]
AfterPublish = Literal["mark", "delete"]
Delivery = Literal["at-least-once", "exactly-once"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "journal", "json", "console"]

IDENTIFIER = Text("a name of 1 to 63 bytes without NUL", r"[^\0]+", limit_bytes=63)
SCHEMA = Text(
    "a name of 1 to 63 bytes without NUL, and without PostgreSQL's own pg_ at its beginning",
    r"(?!pg_)[^\0]+",
    limit_bytes=63,
)
PATH = Text("the path of a readable file")
LISTEN = Text(
    'HOST:PORT such as "127.0.0.1:9464" or "[::1]:9464", or "" for off', r"|(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):[0-9]{1,5}"
)


def command_problem(command: str) -> str | None:
    """What keeps a command line from being split into words."""
    try:
        shlex.split(command)
    except ValueError as error:
        return f"nothing that can be split into words ({error})"
    return None


class DatabaseSettings(Section):
    """Where the outbox is."""

    title = "The PostgreSQL database with the outbox."

    url: Annotated[
        str,
        Text(
            'a URL such as "postgresql://USER@HOST:PORT/DATABASE"',
            r"postgres(ql)?(\+psycopg)?://[^\s\0]*",
            may_hold_secret=True,
            problem=url_problem,
        ),
    ] = option("postgresql://app@localhost/app", "Where the database is; libpq's parameters may follow after a `?`.")
    password: Annotated[str, Text("a text without NUL", secret=True)] = option(
        "",
        "Its password, unless `url` has one; better a credential named `database.password`, or `password_file`. "
        "Not taken from flags.",
    )
    password_file: Annotated[str, PATH] = option("", "File with the password; one newline at its end is dropped.")
    # The quote marks of SQL identifiers are the database code's work: any name that PostgreSQL takes is taken here.
    schema_: Annotated[str, SCHEMA] = option("outboxd", "Schema of outboxd's own tables and of the outbox.")

    @classmethod
    def fields_by_key(cls) -> dict[str, tuple[str, FieldInfo]]:
        """As in every section; `schema` is taken by the base model, so its field has an underscore."""
        return {key.removesuffix("_"): found for key, found in super().fields_by_key().items()}

    @property
    def secrets(self) -> list[str]:
        """What no log line may show: the password, and those in the URL."""
        return [*filter(None, [self.password]), *secrets_of_url(self.url)]


class OutboxSettings(Section):
    """Which outbox is relayed."""

    title = "Which outbox this daemon relays; several may share a schema."

    name: Annotated[str, Text("1 to 63 letters, digits, dots, hyphens and underscores", r"[A-Za-z0-9._-]{1,63}")] = (
        option("default", "Its name in outboxd's tables, in `outbox-source` headers and in the transactional id.")
    )
    table: Annotated[str, IDENTIFIER] = option("outbox", "Its table, in `database.schema`.")


class RelaySettings(Section):
    """How records flow."""

    title = "How records flow from the table to Kafka."

    batch_rows: Annotated[int, Whole(1, 100_000, "rows")] = option(5000, "Rows that one fetch reads at most.")
    batch_bytes: Annotated[int, Size("1kB", "1GiB")] = option(
        4 << 20, "Bytes of key, payload and headers that one fetch reads at most; a single larger row is read alone."
    )
    max_in_flight_rows: Annotated[int, Whole(1, 10_000_000, "rows")] = option(
        50_000, "Rows in memory, from fetch to settlement, at most; after a crash at most so many are sent again."
    )
    max_in_flight_bytes: Annotated[int, Size("1kB", "64GiB")] = option(
        12 << 20, "The same in bytes, each row with about 1 kB for what it costs beside its payload."
    )
    poll_interval_min_seconds: Annotated[float, Duration("1ms", "1m")] = option(
        0.001, "The wait after few rows were acknowledged; while none come it doubles up to `poll_interval_max`."
    )
    poll_interval_max_seconds: Annotated[float, Duration("1ms", "1m")] = option(
        0.1, "The longest wait between fetches, and so the longest an idle daemon leaves a new row unseen."
    )
    sweep_interval_seconds: Annotated[float, Duration("100ms", "1h")] = option(
        5.0, "How often all pending rows are swept for those whose id was drawn long before their insert."
    )
    listen: Annotated[bool, Flag()] = option(
        False,
        "Also wake up by LISTEN/NOTIFY; not through a transaction pooler, nor where applications prepare transactions.",
    )
    after_publish: Annotated[AfterPublish, Choice(("mark", "delete"))] = option(
        "mark", "Keep delivered rows with their partition and offset, or delete them at once (faster, no audit)."
    )
    delivery: Annotated[Delivery, Choice(("at-least-once", "exactly-once"))] = option(
        "at-least-once", "Exactly-once uses Kafka transactions; consumers have to read committed records only."
    )
    shutdown_timeout_seconds: Annotated[float, Duration("100ms", "1h")] = option(
        20.0, "How long a shutdown awaits delivery reports; rows without one stay pending."
    )

    @property
    def is_exactly_once(self) -> bool:
        """Whether records go in Kafka transactions."""
        return self.delivery == "exactly-once"

    def contradictions(self) -> Iterator[Contradiction]:
        """Polls back off, if anything."""
        if self.poll_interval_min_seconds > self.poll_interval_max_seconds:
            yield Contradiction(
                "poll_interval_min", "is above relay.poll_interval_max; allowed: at most that", ("poll_interval_max",)
            )


class RetrySettings(Section):
    """What happens to a row whose own, passing fault kept it from being delivered."""

    title = "Rows that failed by a passing fault of their own; a fault of the cluster counts no attempt."

    max_attempts: Annotated[int, Whole(0, 1_000_000, "attempts")] = option(
        10, "Attempts before a row is dead-lettered as exhausted; 0: no limit."
    )
    backoff_initial_seconds: Annotated[float, Duration("1ms", "24h")] = option(
        1.0, "The bound of the first wait; it doubles with each attempt, and the wait is drawn below it at random."
    )
    backoff_max_seconds: Annotated[float, Duration("1ms", "7d")] = option(300.0, "The bound of every wait.")
    max_age_seconds: Annotated[float, Duration("1s", "3650d", zero="no limit")] = option(
        0.0, "Age since its first counted failure at which a row is dead-lettered as expired."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Waits grow, if anything."""
        if self.backoff_initial_seconds > self.backoff_max_seconds:
            yield Contradiction("backoff_initial", "is above backoff_max; allowed: at most that", ("backoff_max",))


class RetryOverrides(Section):
    """What a route says otherwise about retries; None is "as in [retry]"."""

    max_attempts: Annotated[int | None, Whole(0, 1_000_000, "attempts")] = option(None, "As `retry.max_attempts`.")
    backoff_initial_seconds: Annotated[float | None, Duration("1ms", "24h")] = option(
        None, "As `retry.backoff_initial`."
    )
    backoff_max_seconds: Annotated[float | None, Duration("1ms", "7d")] = option(None, "As `retry.backoff_max`.")
    max_age_seconds: Annotated[float | None, Duration("1s", "3650d", zero="no limit")] = option(
        None, "As `retry.max_age`."
    )


class RouteSettings(Section):
    """What is special about the topics that match a glob."""

    title = "What is special about some topics; as many tables as needed, the first whose glob matches decides."

    topic: Annotated[str, Text("a glob such as metrics.*", r"[^\0]+", limit_bytes=249)] = Field(
        description="Glob on the topic's name: `*`, `?` and `[abc]`."
    )
    confirm: Annotated[Confirm, Choice(("callback", "each", "none"))] = option(
        "callback",
        "Send all, then take the reports; each: one record in flight a topic; none: settled unreported, may lose.",
    )
    on_dead_letter: Annotated[OnDeadLetter, Choice(("continue", "hold-key"))] = option(
        "continue", "Whether later rows of a dead letter's key go on, or wait until it is replayed or discarded."
    )
    retry: RetryOverrides = RetryOverrides()

    def effective_retry(self, general: RetrySettings) -> RetrySettings:
        """`general` with what this route says otherwise."""
        said = {name: value for name, value in self.retry if value is not None}
        return RetrySettings.model_validate({**dict(general), **said})


class ClusterSettings(Section):
    """Several daemons for one outbox."""

    title = "Several daemons for one outbox: one relays, the others stand by."

    lease_ttl_seconds: Annotated[float, Duration("1s", "1h")] = option(
        10.0, "How long a lease is good without renewal, and so how long a takeover from a dead daemon takes."
    )


class HousekeepingSettings(Section):
    """What is removed, and when."""

    title = "What is removed, in small batches beside the relay."

    published_retention_seconds: Annotated[float, Duration("1s", "36500d", zero="kept for ever")] = option(
        86_400.0, "Age since publishing at which a delivered row is removed."
    )
    dead_letter_retention_seconds: Annotated[float, Duration("1s", "36500d", zero="kept for ever")] = option(
        90 * 86_400.0, "Age since its resolution at which a replayed or discarded dead letter is removed."
    )


class AlertSettings(Section):
    """Who is told."""

    title = "Who is told of a dead letter of a new kind, a breaker, the storm guard, a stall."

    command: Annotated[str, Text('a command line, or "" for none', problem=command_problem)] = option(
        "",
        "Run with the event as JSON on its standard input, at a limited rate; a secret of it belongs in a file that it "
        "reads, since the command itself is shown.",
    )
    dead_letter_topic: Annotated[str, Text('a topic name, or "" for none', r"(?!\.{1,2}$)[A-Za-z0-9._-]{0,249}")] = (
        option("", "Topic for copies of dead letters, with the headers the ecosystem knows.")
    )


class HttpSettings(Section):
    """The page, its JSON and the metrics."""

    title = "/metrics, /livez, /readyz, /status and the page at /."

    listen: Annotated[str, LISTEN] = option(
        "127.0.0.1:9464", 'Address to listen on; "" is off. An address that others reach needs a token.'
    )
    token: Annotated[str, Text("a text without NUL", secret=True)] = option(
        "", "What allows the page to change anything; better a credential named `http.token`, or `token_file`."
    )
    token_file: Annotated[str, PATH] = option("", "File with the token; without one the page only reads.")

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None when it is off."""
        if not self.listen:
            return None
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def contradictions(self) -> Iterator[Contradiction]:
        """An address can be listened on, and is safe."""
        if self.address is None:
            return
        host, port = self.address
        if port > 65_535:
            yield Contradiction("listen", "has a port above 65535; allowed: 0 (any free one) to 65535")
        if not (is_loopback(host) or self.token):
            yield Contradiction(
                "listen", "is reachable from elsewhere; allowed: a loopback address, or set http.token_file", ("token",)
            )


class LogSettings(Section):
    """What is logged, and how."""

    title = "The log."

    level: Annotated[LogLevel, Choice(("debug", "info", "warning", "error"))] = option(
        "info", "The least severe event that is logged; debug has one event a row, with topic-partition@offset."
    )
    format: Annotated[LogFormat, Choice(("auto", "journal", "json", "console"))] = option(
        "auto", "Auto is the journal under systemd, console on a terminal, and json elsewhere."
    )
