"""The daemon's own page, asked by a command over HTTP: what it answers, or None where nobody answers soon.

The token is never sent: nothing tells who listens there while the daemon is down, and it lets whoever has it change
things. Without it a page that others can reach keeps the keys of held rows to itself; the database has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

ANSWER_SECONDS_MAX: Final = 1.0
ANSWER_BYTES_MAX: Final = 4 << 20
_IS_OURS: Final = frozenset({"outbox", "daemon", "version", "state", "relay"})
"""What no other server's answer has together."""
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask a daemon that listens on all


class DaemonPage:
    """Where a daemon listens, by the configuration."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        """`address` is `settings.http.address`: None where the page is off."""
        self.base = _base(address)
        self._opener: OpenerDirector | None = None

    def json(self, path: str) -> Any:
        """The JSON document at `path`; None where none came."""
        body = self.ask(path)
        try:
            return None if body is None else json.loads(body)
        except (ValueError, RecursionError):
            return None

    def status(self) -> dict[str, Any] | None:
        """What `/status` says; None where the daemon does not listen, or not answer soon, or something else does."""
        document = self.json("/status")
        return document if isinstance(document, dict) and document.keys() >= _IS_OURS else None

    def ask(self, path: str) -> bytes | None:
        """The body at `path`; None where nobody answers well."""
        from http.client import HTTPException
        from urllib.request import ProxyHandler, Request, build_opener

        if not self.base:
            return None
        if self._opener is None:
            # Without the proxy that the environment may name: the daemon is near.
            self._opener = build_opener(ProxyHandler({}))
        request = Request(self.base + path)  # noqa: S310 - the base is always http://
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS_MAX) as answer:
                body: bytes = answer.read(ANSWER_BYTES_MAX)
        except (OSError, ValueError, HTTPException):
            return None
        return body


def troubles(status: Mapping[str, Any]) -> list[str]:
    """Return which servers do not answer the daemon, what keeps it from sending at all, which topics are stuck though
    brokers answer, and whether rows that were sent cannot be settled, each with why, from what `/status` says.
    """
    found, refusal = [], ""
    for key, name in (("database", "PostgreSQL"), ("kafka", "Kafka")):
        server = status.get(key)
        if isinstance(server, dict) and server.get("since") and not server.get("up"):
            cause = server.get("cause")
            if server.get("refuses"):
                # It answers: which rows it does not settle is told below.
                refusal = cause or ""
                continue
            found.append(f"{name} does not answer" + (f": {cause}" if cause else ""))
    relay = status.get("relay")
    if not isinstance(relay, dict):
        return found
    if relay.get("recovery_failure"):
        found.append(f"nothing is sent until what was sent before is known: {relay['recovery_failure']}")
    stalled = relay.get("stalled_topics")
    if isinstance(stalled, dict) and _answers(status.get("kafka")):
        found += [f"the oldest record of topic {topic} gets no answer: {cause}" for topic, cause in stalled.items()]
    if relay.get("refused_rows"):
        waits = ", and all else waits for that" if relay.get("waits_for_refused") else ""
        why = relay.get("refusal") or refusal or "the event row_not_settled in the log says why"
        found.append(f"PostgreSQL refuses to settle rows that were sent ({relay['refused_rows']:,}){waits}: {why}")
    return found


def _answers(server: object) -> bool:
    return not isinstance(server, dict) or bool(server.get("up"))


def _base(address: tuple[str, int] | None) -> str:
    if address is None or address[1] == 0:
        return ""
    host = _ANY_ADDRESS.get(address[0], address[0])
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
