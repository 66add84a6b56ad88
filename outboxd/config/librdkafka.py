"""The section [kafka]: librdkafka's own properties, passed on as they are, except those that would void a guarantee."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from outboxd.config.mistakes import suggestion
from outboxd.config.redaction import HIDDEN, is_secret, redact
from outboxd.errors import ConfigError

BOOTSTRAP = "bootstrap.servers"
RECORD_BYTES = "message.max.bytes"
QUEUE_KBYTES = "queue.buffering.max.kbytes"
MECHANISMS = ("sasl.mechanism", "sasl.mechanisms")
"""The property, and its other name."""
_YES = ("true", "t", "1")
NO_BROKERS = f'is not set; write "{BOOTSTRAP}" = "HOST:9092" under [kafka], or set OUTBOXD_KAFKA__BOOTSTRAP_SERVERS'

# Never a property of librdkafka: whatever is set before it was fine when this is what a client complains about.
_SENTINEL = "outboxd.sentinel"

#: For suggestions only; librdkafka itself decides what is known.
COMMON_PROPERTIES = (
    "bootstrap.servers", "client.id", "security.protocol", "compression.type", "compression.level", "linger.ms",
    "batch.size", "batch.num.messages", "message.max.bytes", "partitioner", "acks", "enable.idempotence",
    "queue.buffering.max.messages", "queue.buffering.max.kbytes", "request.timeout.ms", "transaction.timeout.ms",
    "retry.backoff.ms", "retry.backoff.max.ms", "reconnect.backoff.ms", "reconnect.backoff.max.ms",
    "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "sasl.kerberos.service.name",
    "sasl.kerberos.keytab", "sasl.kerberos.principal", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.method", "ssl.ca.location", "ssl.ca.pem",
    "ssl.certificate.location", "ssl.certificate.pem", "ssl.key.location", "ssl.key.password", "ssl.key.pem",
    "ssl.keystore.location", "ssl.keystore.password", "ssl.endpoint.identification.algorithm", "socket.timeout.ms",
    "socket.keepalive.enable", "socket.connection.setup.timeout.ms", "broker.address.family",
    "topic.metadata.refresh.interval.ms", "metadata.max.age.ms", "debug", "log_level",
)  # fmt: skip


class KafkaSettings(BaseModel):
    """librdkafka's properties as the configuration has them, every value as text; secrets read, never shown.

    What outboxd itself adds (idempotence, no time-out, its transactional id) is no setting and not among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: ClassVar[str] = "librdkafka's own properties, by their own names, passed on as they are."

    properties: Mapping[str, str] = Field(default_factory=dict)

    @property
    def bootstrap_servers(self) -> str:
        """The brokers to ask first.

        Raises:
            ConfigError: not set; says how to.
        """
        servers = self.properties.get(BOOTSTRAP) or self.properties.get("metadata.broker.list", "")
        if not servers:
            raise ConfigError(f"kafka.{BOOTSTRAP} {NO_BROKERS}")
        return servers

    def plain(self) -> dict[str, object]:
        """Property → value, secrets hidden."""
        return {key: redact(key, value) for key, value in self.properties.items()}

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """What repr and str show: secrets hidden."""
        yield "properties", self.plain()


@dataclass(frozen=True)
class _Guard:
    allows: Callable[[str], bool]
    allowed: str
    reason: str


def _only(*words: str) -> Callable[[str], bool]:
    return lambda value: value.strip().lower() in words


def _at_most(limit: int) -> Callable[[str], bool]:
    return lambda value: value.strip().isdecimal() and 1 <= int(value) <= limit


def _never(_value: str) -> bool:
    return False


_ACKS = _Guard(_only("all", "-1"), '"all"', "a leader's word alone can be lost with it, and the row would be marked")
_TIMEOUT = _Guard(
    _only("0"), '"0" (no limit)', "a time-out drops the middle of a queue: rows fail that later rows overtake"
)
_IN_FLIGHT = _Guard(_at_most(5), "1 to 5", "a broker keeps order for an idempotent producer's last five requests only")
_RETRIES = _Guard(_only("2147483647"), "2147483647", "a limit makes the client give up rows in the middle of a queue")
#: What outboxd reads too. librdkafka takes 0x10 and 010 as well, for 16 and 8.
DECIMAL_PROPERTIES = ("message.max.bytes", "batch.size", "transaction.timeout.ms", "queue.buffering.max.kbytes")
#: The only ones that librdkafka reads as C does fractions: nan is one.
FRACTIONAL_PROPERTIES = ("linger.ms", "queue.buffering.max.ms")
_CALLBACK = _Guard(_never, "nothing: outboxd sets it", "delivery reports are how rows are settled")

#: Property → what it may be, and why no more.
GUARDS: Mapping[str, _Guard] = {
    "enable.idempotence": _Guard(
        _only("true", "1"), '"true"', "without it the client's own retries repeat and reorder records"
    ),
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "message.timeout.ms": _TIMEOUT,
    "delivery.timeout.ms": _TIMEOUT,
    "max.in.flight": _IN_FLIGHT,
    "max.in.flight.requests.per.connection": _IN_FLIGHT,
    "retries": _RETRIES,
    "message.send.max.retries": _RETRIES,
    "enable.gapless.guarantee": _Guard(
        _only("false", "0"), '"false"', "it turns one poison row into a fatal error of the whole producer"
    ),
    "transactional.id": _Guard(
        _never, "nothing: outboxd names it after database, schema and outbox", "another name fences no predecessor"
    ),
    "delivery.report.only.error": _Guard(_never, "nothing: it stays false", "no row would be reported as delivered"),
    "queuing.strategy": _Guard(_only("fifo"), '"fifo"', "another order of the queue is another order of the records"),
    "partitioner": _Guard(
        lambda value: value.strip().lower() != "random",
        "any but random",
        "rows of one key have to meet in one partition",
    ),
    "plugin.library.paths": _Guard(_never, "nothing", "an interceptor sees and changes what outboxd vouches for"),
    "default.topic.config": _Guard(_never, "nothing", "topic properties are given like any other"),
    "logger": _Guard(_never, "nothing: outboxd sets it", "a file cannot name a logger; see [log]"),
    **dict.fromkeys(
        ("dr_cb", "dr_msg_cb", "on_delivery", "error_cb", "stats_cb", "throttle_cb", "oauth_cb", "log_cb"), _CALLBACK
    ),
}


def property_problem(key: str, value: str) -> str | None:
    """What is wrong with the property `key` = `value`, with what is allowed; None when it may be passed on.

    What a guard refuses is judged here; everything else librdkafka judges itself, without opening a connection.
    """
    guard = GUARDS.get(key)
    if guard is not None and not guard.allows(value):
        return f"{value!r} is refused: {guard.reason}; allowed: {guard.allowed}"
    if "\0" in value or not _is_unicode(value):
        return "not text; allowed: UTF-8 without NUL"
    problem = _client_problem(key, value)
    if problem is None and key in DECIMAL_PROPERTIES and not re.fullmatch(r"\s*[1-9][0-9]*\s*|0", value, re.ASCII):
        return f"{value!r} is not written in decimal digits, which outboxd needs to read it too; allowed: such as 1000"
    if problem is None and key in FRACTIONAL_PROPERTIES and "nan" in value.lower():
        # It is in every range, as C compares numbers.
        return f"{value!r} is not a number; allowed: milliseconds such as 5 or 0.5"
    return problem


def queue_problem(properties: Mapping[str, str]) -> str | None:
    """What is wrong with the size of the client's queue; None where it holds any record.

    One that it cannot hold is never taken, however empty it is, and all others wait behind it.
    """
    if QUEUE_KBYTES not in properties:
        return None
    record_bytes = int(properties.get(RECORD_BYTES, "1000000"))
    least_kbytes = -(-record_bytes // 1024)
    if int(properties[QUEUE_KBYTES]) >= least_kbytes:
        return None
    return f"has no room for a record of {RECORD_BYTES} ({record_bytes}); allowed: at least {least_kbytes}"


def token_problem(properties: Mapping[str, str]) -> str | None:
    """What is wrong with a login by token; None where something gives the client one.

    It waits for a token without a word, and no broker is ever asked.
    """

    def given(name: str) -> str:
        return properties.get(name, "").strip().lower()

    if "oauthbearer" not in map(given, MECHANISMS) or not given("security.protocol").startswith("sasl"):
        return None
    if given("sasl.oauthbearer.method") == "oidc" or given("enable.sasl.oauthbearer.unsecure.jwt") in _YES:
        return None
    return (
        "OAUTHBEARER, and nothing gives the client a token; set sasl.oauthbearer.method to oidc, with the other "
        "sasl.oauthbearer.* that it needs"
    )


def is_property(key: str) -> bool:
    """Whether librdkafka, or a guard here, knows a property of this name."""
    return not (property_problem(key, "") or "").startswith("no such property")


def property_of_variable(name: str) -> str:
    """The property that a variable's name means, its dots written as underscores, which a few properties have too."""
    dotted = name.replace("_", ".")
    return name if dotted != name and not is_property(dotted) and is_property(name) else dotted


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _client_problem(key: str, value: str) -> str | None:
    from confluent_kafka import KafkaException, Producer

    try:
        # The sentinel is refused in any case, so no client is ever made: only the message tells what was wrong first.
        Producer({key: value, _SENTINEL: ""})
    except KafkaException as error:
        text = error.args[0].str().strip()
    except (AttributeError, TypeError, ValueError) as error:
        text = str(error)
    if _SENTINEL in text:
        return None
    if text.startswith("No such configuration property"):
        return f"no such property of librdkafka{suggestion(key, COMMON_PROPERTIES)}"
    if is_secret(key) and value:
        text = text.replace(value, HIDDEN)
    return f"refused by librdkafka: {text}"
