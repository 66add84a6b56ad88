"""The page's address may be another's, or not on this machine, when the daemon starts: the daemon relays meanwhile."""

from __future__ import annotations

import errno
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from outboxd.daemon.surroundings import _listening
from outboxd.errors import ConfigError
from outboxd.web import listening
from outboxd.web.listening import Listening, why_missing
from outboxd.web.server import HttpServer


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"here"]


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), "http_address_taken"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "http_address_missing"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "http_address_missing"),
    ],
)
def test_an_address_is_taken_once_it_can_be(error: OSError, event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [error, error]
    events: list[tuple[str, dict[str, Any]]] = []
    is_there = threading.Event()

    def make(*arguments: Any) -> HttpServer:
        if problems:
            raise problems.pop()
        return HttpServer(*arguments)

    def told(name: str, **fields: Any) -> None:
        events.append((name, fields))
        if name == "http_address_free":
            is_there.set()

    monkeypatch.setattr(listening, "HttpServer", make)
    page = Listening(answer, "127.0.0.1", 0, told, retry_seconds=0.01)
    page.start()
    try:
        assert is_there.wait(10)
        assert page.address is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{page.address[1]}/", timeout=5) as got:
            assert got.read() == b"here"
    finally:
        page.stop()
    assert [name for name, _ in events] == [event, "http_address_free"]
    assert events[0][1].get("cause", error.strerror) == error.strerror


def test_what_no_time_mends_ends_the_start_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> HttpServer:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listening, "HttpServer", refuse)
    with pytest.raises(ConfigError, match=r"http\.listen: 127\.0\.0\.1:80 cannot be listened on: Permission denied"):
        _listening(answer, "127.0.0.1", 80, lambda *_, **__: None)  # type: ignore[arg-type]  # any application


def test_an_address_is_looked_for_without_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert why_missing("127.0.0.1") is None
    # 192.0.2.0/24 is for documentation: nobody has it.
    assert why_missing("192.0.2.1") == "Cannot assign requested address"
