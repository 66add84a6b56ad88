"""The HTTP server: the standard library's, on threads, with everything bounded.

A scraper that hangs, sends a byte a minute or never reads its answer holds one of a few places, and loses it after a
while, or as soon as somebody else needs it; the relay notices nothing of it.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

CONNECTIONS_MAX: Final = 16
SILENCE_SECONDS_MAX: Final = 10.0
REQUEST_SECONDS_MAX: Final = 30.0
PLACE_SECONDS: Final = 1.0
"""For so long a connection keeps its place whoever waits for one: an answer takes milliseconds."""
LEAVING_SECONDS: Final = 0.2
_BUSY: Final = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"


def family_of(host: str) -> socket.AddressFamily:
    """IPv6 for such an address; names are IPv4's."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Connection(WSGIRequestHandler):
    """One connection. Silence for longer than `timeout` ends it; requests are not logged one by one."""

    timeout = SILENCE_SECONDS_MAX
    server_version = "outboxd"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""

    def handle(self) -> None:
        """Answer one request; a peer that is silent or gone is no news."""
        with contextlib.suppress(OSError):
            super().handle()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Takes at most so many connections at once, and ends those that last too long."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], *, connections_max: int, request_seconds_max: float, place_seconds: float
    ) -> None:
        self.address_family = family_of(address[0])
        self._place_seconds = place_seconds
        self._places = threading.BoundedSemaphore(connections_max)
        self._request_seconds_max = request_seconds_max
        self._began_at: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind, without asking the name service what the address is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0:2]  # type: ignore[assignment]  # strings here
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, if there is a place."""
        if not self._places.acquire(blocking=False) and not self._take_place_of_another():
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
            self.shutdown_request(request)
            return
        with self._lock:
            self._began_at[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread could be started.
            self._leave(request)
            raise

    def _take_place_of_another(self) -> bool:
        """End the connection that has lasted longest, if that was long. Return whether there is a place by that."""
        with self._lock:
            oldest, began_at = next(iter(self._began_at.items()), (None, 0.0))
        if oldest is None or time.monotonic() - began_at < self._place_seconds:
            return False
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)
        return self._places.acquire(timeout=LEAVING_SECONDS)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection on its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            known = self._began_at.pop(request, None)
        if known is not None:
            self._places.release()

    def service_actions(self) -> None:
        """End connections that last too long, several times a second; their threads then notice."""
        limit = time.monotonic() - self._request_seconds_max
        with self._lock:
            late = [request for request, began_at in self._began_at.items() if began_at < limit]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news; what the application gets wrong it tells itself."""


class HttpServer:
    """A WSGI application on an address, on threads of its own."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_seconds_max: float = REQUEST_SECONDS_MAX,
        place_seconds: float = PLACE_SECONDS,
        look_seconds: float = 0.2,
    ) -> None:
        """Listen at once; answer after `start`.

        Args:
            app: the WSGI application.
            host: the address to listen on.
            port: its port; 0 takes any free one.
            connections_max: connections served at once; further ones are refused with 503, while these are young.
            request_seconds_max: the longest that one connection may last.
            place_seconds: how long it may last at least, whoever waits for its place.
            look_seconds: how often late connections and a stop are looked for.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = _Server(
            (host, port),
            connections_max=connections_max,
            request_seconds_max=request_seconds_max,
            place_seconds=place_seconds,
        )
        self._server.set_app(app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(look_seconds,), name="http", daemon=True
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._server.server_address[0], self._server.server_address[1]  # type: ignore[return-value]  # TCP

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Take no more requests; those under way end with the process."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout_seconds)
        self._server.server_close()
