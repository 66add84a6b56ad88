"""The page's address: taken at the start, or once it can be.

A second daemon on the same machine may have the same configuration: as a standby it has more to do than to show a
page, and the page is there again soon after it has taken over. An address that moves between machines is only on one of
them, and one that a server gives may come after the daemon: rows wait for neither.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from outboxd.web.server import HttpServer, family_of

RETRY_SECONDS: Final = 2.0


def why_missing(host: str) -> str | None:
    """Why this machine cannot listen on that address, or does not know that name, at present; None where it can."""
    try:
        with socket.socket(family_of(host)) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.strerror or str(error)
    return None


class Listening:
    """Keeps one application on one address."""

    def __init__(
        self, app: Any, host: str, port: int, event: Callable[..., None], *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        """Take the address; where another process has it, or this machine does not, say so by the event
        `http_address_taken` or `http_address_missing`.

        Raises:
            OSError: the address can never be listened on.
        """
        self._make = partial(HttpServer, app, host, port)
        self._address = f"{host}:{port}"
        self._event = event
        self._retry_seconds = retry_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: HttpServer | None = None
        try:
            self._server = self._make()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                event("http_address_taken", address=self._address)
            elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                event("http_address_missing", address=self._address, cause=error.strerror or str(error))
            else:
                raise

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it listens; None while it waits for the address."""
        return None if self._server is None else self._server.address

    def start(self) -> None:
        """Answer from now on, or from when the address is free, or there."""
        if self._server is not None:
            self._server.start()
            return
        thread = threading.Thread(target=self._wait, name="http-address", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Take no more requests."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._server is not None:
            self._server.stop()

    def _wait(self) -> None:
        while not self._stopping.wait(self._retry_seconds):
            with contextlib.suppress(OSError):
                self._server = self._make()
                self._server.start()
                self._event("http_address_free", address=self._address)
                return
