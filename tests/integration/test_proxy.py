"""The proxy that breaks connections breaks them in the ways it says."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Fault, TcpProxy


class _Echo(socketserver.BaseRequestHandler):
    """Sends back what it hears, and a farewell when the client has finished."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        try:
            while heard := connection.recv(65536):
                connection.sendall(heard)
            connection.sendall(b"bye")
        except OSError:
            return  # Cut on purpose.


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with TcpProxy(("127.0.0.1", server.server_address[1])) as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def connection(proxy: TcpProxy) -> Iterator[socket.socket]:
    with _connect(proxy) as connected:
        assert _echo(connected) == b"ping"
        yield connected


def test_delay_adds_latency_each_way_and_costs_no_bandwidth(proxy: TcpProxy, connection: socket.socket) -> None:
    proxy.delay(100)
    for size_bytes in (4, 2_000_000):
        before = time.monotonic()
        assert _echo(connection, b"x" * size_bytes) == b"x" * size_bytes
        assert 0.2 <= time.monotonic() - before < 2


def test_a_limit_slows_down_and_zero_stalls_until_it_is_lifted(proxy: TcpProxy, connection: socket.socket) -> None:
    proxy.limit(1_000_000)
    before = time.monotonic()
    _echo(connection, b"x" * 200_000)
    assert time.monotonic() - before >= 0.2
    proxy.limit(0)
    connection.sendall(b"late")
    assert _silent(connection)
    proxy.limit(None)
    assert connection.recv(10) == b"late"


def test_a_black_hole_accepts_and_swallows_and_healing_resets_what_lost_bytes(
    proxy: TcpProxy, connection: socket.socket
) -> None:
    proxy.set(Fault.BLACK_HOLE)
    with _connect(proxy) as newcomer:
        for swallowed in (connection, newcomer):
            swallowed.sendall(b"lost")
            assert _silent(swallowed)
        proxy.heal()
        for torn in (connection, newcomer):
            with pytest.raises(ConnectionResetError):
                torn.recv(10)
    with _connect(proxy) as whole:
        assert _echo(whole) == b"ping"


@pytest.mark.parametrize("fault", [Fault.SWALLOW_REQUESTS, Fault.SWALLOW_REPLIES])
def test_one_way_loss_keeps_the_connection_open_and_silent(
    proxy: TcpProxy, connection: socket.socket, fault: Fault
) -> None:
    proxy.set(fault)
    connection.sendall(b"lost")
    assert _silent(connection)
    assert proxy.open_connections == 1


def test_a_cut_resets_open_connections_and_leaves_new_ones_alone(proxy: TcpProxy, connection: socket.socket) -> None:
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        connection.recv(10)
    with _connect(proxy) as another:
        assert _echo(another) == b"ping"


def test_refusing_resets_old_connections_and_new_ones(proxy: TcpProxy, connection: socket.socket) -> None:
    proxy.set(Fault.REFUSE)
    with pytest.raises(ConnectionResetError):
        connection.recv(10)
    # The reset may come before connecting is over, or only when something is read.
    with pytest.raises(ConnectionResetError), _connect(proxy) as refused:
        refused.recv(10)


def test_half_closing_ends_the_stream_to_the_client_only(proxy: TcpProxy, connection: socket.socket) -> None:
    assert proxy.half_close() == 1
    assert connection.recv(10) == b""
    connection.sendall(b"still heard")  # The other direction is open: no reset.
    assert proxy.open_connections == 1


def test_the_end_of_a_clients_stream_is_passed_on_and_the_rest_still_comes_back(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(10) == b"bye"
    assert connection.recv(10) == b""


def _connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _echo(connection: socket.socket, data: bytes = b"ping") -> bytes:
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    heard = b""
    while len(heard) < len(data):
        heard += connection.recv(65536)
    sender.join()
    return heard


def _silent(connection: socket.socket) -> bool:
    """Whether nothing at all arrives for a while, not even the end."""
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False
