"""Why no broker answers: the most telling of what the client said of its connections last.

It says that all brokers are down whenever they are, and why in an error of its own or in a line of its log only: a
server that hangs up, as one with TLS does on a client without, or that keeps silent has no error.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from confluent_kafka import KafkaError

from outboxd.kafka.client.client_config import CLIENT_LOGGER
from outboxd.kafka.client.codes import in_words
from outboxd.kafka.client.connection_remedies import remedy_of, without_times

HOLDS_SECONDS: Final = 30.0
"""So long after it was said last a cause hides what tells less: other brokers may have other troubles."""
LATELY_SECONDS: Final = 45.0
"""The client says of one connection the same twice in 30 s at most."""
POLLED_WITHIN_SECONDS: Final = 0.5
"""The relay takes what the client says at least so often."""
_CONNECTION_LOST: Final = "FAIL"
"""How librdkafka calls its lines about a connection that came to nothing."""
_FATAL: Final = "FATAL"
_GAPLESS: Final = "Gap-less ordering would not be guaranteed"
_WARNING: Final = "CONFWARN"
_PROPERTY: Final = "enable.gapless.guarantee is experimental"
_THREAD: Final = re.compile(r"^\[thrd:[^ ]*\]: ")


class _Cause(NamedTuple):
    weight: int
    at: float
    told: str


class ClusterFailure:
    """What one client's errors and lines come to. It is the client's logger too: both come with `poll`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is wrong yet."""
        self._monotonic = monotonic
        self._cause: _Cause | None = None
        self._last: _Cause | None = None
        self._heard = threading.Event()

    @property
    def told(self) -> str | None:
        """What people are told, None while nothing is known to be wrong. May be called on any thread."""
        cause = self._cause
        return None if cause is None else cause.told

    @property
    def lately(self) -> str | None:
        """What was told last, if that is not long ago, though a broker may have answered since: others may not."""
        last = self._last
        return None if last is None or self._monotonic() - last.at >= LATELY_SECONDS else last.told

    def clear(self) -> None:
        """A broker answered. May be called on any thread."""
        self._cause = None
        self._heard.clear()

    def tell(self, words: str) -> None:
        """What keeps the client from asking at all."""
        self._take(_Cause(_CAUSE, self._monotonic(), words))

    def note(self, error: KafkaError) -> None:
        """The client tells an error that is not fatal."""
        former, now, weight = self._cause, self._monotonic(), _weight(error)
        if former is None or weight >= former.weight or now - former.at >= HOLDS_SECONDS:
            self._take(_Cause(weight, now, in_full(error)))

    def unanswered(self, servers: str, seconds: float) -> None:
        """A question had no answer; why, the thread that polls may be about to tell, which is waited for so long."""
        self._heard.wait(seconds)
        former = self._cause
        if former is None or former.weight < _SILENCE:
            self.note(silence_of(servers))

    def log(self, level: int, form: str, *args: object) -> None:
        """The client logs a line: as the standard logger's method, called with facility, client and text."""
        error = connection_error(level, *args)
        if error is not None:
            self.note(error)
        CLIENT_LOGGER.log(logging.DEBUG if _is_of_chains(args) else level, form, *args)

    def _take(self, cause: _Cause) -> None:
        self._cause = self._last = cause
        self._heard.set()


def _is_of_chains(args: tuple[object, ...]) -> bool:
    """Say whether the client tells that it keeps what it was given without gaps, or that it ends for that: this is what
    it is made for, and what became of the records is told elsewhere.
    """
    if len(args) != 3:
        return False
    text = str(args[2])
    return (args[0] == _FATAL and _GAPLESS in text) or (args[0] == _WARNING and _PROPERTY in text)


def connection_error(level: int, *args: object) -> KafkaError | None:
    """Return what became of a connection, where the client says it by a line of its log alone.

    Args:
        level: that of the line.
        args: facility, client and text.
    """
    # What it logs as an error it tells as one too, with a code.
    if level >= logging.ERROR or len(args) != 3 or args[0] != _CONNECTION_LOST:
        return None
    return KafkaError(KafkaError._TRANSPORT, _THREAD.sub("", str(args[2])))


def silence_of(servers: str) -> KafkaError:
    """Return the error of servers of which nothing at all was heard."""
    return KafkaError(KafkaError._TIMED_OUT, f"no answer from {servers}")


def in_full(error: KafkaError) -> str:
    """Return what people are told of an error of the client's connections, with the remedy."""
    return f"{without_times(in_words(error))}; {remedy_of(error)}"


_CONSEQUENCE, _SILENCE, _CONNECTION, _CAUSE = range(4)


def _weight(error: KafkaError) -> int:
    """How much it tells: that brokers are down, that one kept silent, what became of a connection, and why."""
    code = error.code()
    if code == KafkaError._ALL_BROKERS_DOWN:
        return _CONSEQUENCE
    if code == KafkaError._TIMED_OUT:
        return _SILENCE
    is_handshake = "SSL handshake failed" in error.str()
    return _CONNECTION if code in {KafkaError._TRANSPORT, KafkaError._RESOLVE} and not is_handshake else _CAUSE
