"""The guard: who may ask for what.

On a loopback address everybody on the machine may read, so a web page elsewhere must not be able to: the Host header
has to name the machine itself, or a name that an attacker points at 127.0.0.1 would do (DNS rebinding). On any other
address, what shows keys and payloads needs the token. Changes always need it, and come from the page itself.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from outboxd.loopback import is_loopback

Environ = Mapping[str, Any]

FAILURES_MAX: Final = 10
FAILURE_WINDOW_SECONDS: Final = 60.0
_NAMES_OF_LOOPBACK: Final = frozenset({"localhost.localdomain", "ip6-localhost"})
"""By these, too, a browser may have come to a loopback address, where /etc/hosts has them."""


class Refusal(Exception):  # noqa: N818 - it is not an error of ours, but an answer
    """The request is refused: an HTTP status and a sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Guard:
    """Checks requests. Any thread may use it."""

    def __init__(self, listen_host: str, token: str, monotonic: Callable[[], float]) -> None:
        """`listen_host` is where the server listens; an empty `token` allows no change at all."""
        self._listen_host = listen_host.lower()
        self.is_loopback = is_loopback(listen_host)
        self.token = token
        self._monotonic = monotonic
        self._failures = 0
        self._failures_since = 0.0
        self._lock = threading.Lock()

    def check_host(self, environ: Environ) -> None:
        """Refuse a request that came by a name which is not this machine's own."""
        if not self.is_loopback:
            return
        host = _host_of(str(environ.get("HTTP_HOST", "")))
        if host not in {self._listen_host, *_NAMES_OF_LOOPBACK} and not is_loopback(host):
            raise Refusal("421 Misdirected Request", "this address answers to localhost only; use 127.0.0.1")

    def check_reading(self, environ: Environ) -> None:
        """Refuse to show keys and payloads to others than this machine's users without the token."""
        if not self.is_loopback:
            self._check_token(environ)

    def may_read_keys(self, environ: Environ) -> bool:
        """Say whether keys may be shown, where the rest may be shown to all."""
        try:
            self.check_reading(environ)
        except Refusal:
            return False
        return True

    def check_changing(self, environ: Environ) -> None:
        """Refuse a change without the token, or one that another site's page asks for."""
        if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
            raise Refusal("403 Forbidden", "changes come from the page itself only")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and urlsplit(str(origin)).netloc.lower() != str(environ.get("HTTP_HOST", "")).lower():
            raise Refusal("403 Forbidden", "changes come from the page itself only")
        if not str(environ.get("CONTENT_TYPE", "")).startswith("application/json"):
            raise Refusal("415 Unsupported Media Type", "send application/json")
        if not self.token:
            raise Refusal("403 Forbidden", "the page only reads: set http.token_file to allow changes")
        self._check_token(environ)

    def _check_token(self, environ: Environ) -> None:
        with self._lock:
            now = self._monotonic()
            if now - self._failures_since > FAILURE_WINDOW_SECONDS:
                self._failures, self._failures_since = 0, now
            if self._failures >= FAILURES_MAX:
                raise Refusal("429 Too Many Requests", "too many wrong tokens; wait a minute")
            if not self._has_token(environ):
                # Who gives none does not guess: a page that nobody told the token asks all the time.
                self._failures += bool(environ.get("HTTP_AUTHORIZATION"))
                raise Refusal("401 Unauthorized", "this needs the token: Authorization: Bearer …")

    def _has_token(self, environ: Environ) -> bool:
        scheme, _, given = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        # WSGI's strings are Latin-1 by agreement; both sides are compared as bytes, in constant time.
        return (
            bool(self.token)
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.token.encode())
        )


def hide_rows(told: dict[str, Any]) -> None:
    """Take from a status what is in rows: the keys, and what PostgreSQL says where it refuses some, which may quote
    them.
    """
    if told["database"]["refuses"]:
        told["database"]["cause"] = ""
    relay = told["relay"]
    if relay is not None:
        relay["refusal"] = ""
        relay["held"] = [{**held, "key": None, "key_is_hidden": held["key"] is not None} for held in relay["held"]]


def _host_of(header: str) -> str:
    """The host of a Host header, without its port, in lower case; empty where it makes no sense."""
    try:
        return (urlsplit("//" + header).hostname or "").lower()
    except ValueError:
        return ""
