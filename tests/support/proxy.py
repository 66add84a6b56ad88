"""A loopback TCP proxy that breaks connections on purpose, in the ways that networks do.

proxy = TcpProxy(("127.0.0.1", 9092))
proxy.set(Fault.BLACK_HOLE)      # what is connected hears nothing more; new connections are accepted and swallowed
proxy.heal()
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import socket
import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

_CHUNK_BYTES = 64 * 1024
_CHUNKS_DELAYED_MAX = 1024
_CLOSE_TIMEOUT_SECONDS = 5.0
_ACCEPT_TURNS = 5
"""In so many turns of its loop asyncio hands over what it accepted; cancelled before that, it would leave it open."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST

_Result = TypeVar("_Result")


class Fault(enum.Enum):
    """What the proxy does with connections, old and new."""

    PASS = "pass"
    REFUSE = "refuse"  # every connection is reset, new ones as soon as they are accepted
    BLACK_HOLE = "black-hole"  # bytes of both directions vanish; nobody is told
    SWALLOW_REQUESTS = "swallow-requests"  # one way: what clients send vanishes
    SWALLOW_REPLIES = "swallow-replies"  # one way: what the server sends vanishes


@dataclass(slots=True, eq=False)
class _Link:
    """One proxied connection: two sockets and the tasks that copy between them."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set by reset(): nothing is to be copied any more
    client_ended: bool = False  # The client was sent the end of the stream by half_close().
    tainted: bool = False  # Bytes were swallowed: the stream can never be whole again, so healing resets it.

    async def swallow(self, chunk: bytes) -> None:
        """Forget bytes; the end of a stream (no bytes) is not passed on either, ever."""
        self.tainted = True
        if not chunk:
            await self.gone.wait()

    def reset(self) -> None:
        self.gone.set()
        for writer in (self.client, self.server):
            if writer is None:
                continue
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class TcpProxy:
    """Forwards `port` on loopback to `target`. Every method may be called from any thread, at any time."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._fault = Fault.PASS
        self._delay_seconds = 0.0
        self._bytes_per_second: float | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0  # connections since the start
        self._closing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port` that clients connect to."""
        return f"127.0.0.1:{self.port}"

    def set(self, fault: Fault) -> None:
        """Apply `fault` to every connection from now on, those that are open included."""
        self._call(lambda: self._set(fault))

    def heal(self) -> None:
        """Forward again, at full speed. Connections that lost bytes are reset: they cannot be whole again."""
        self.delay(0)
        self.limit(None)
        self.set(Fault.PASS)

    def cut(self) -> int:
        """Reset (RST) the open connections, leave new ones alone; return how many were cut."""
        return self._call(self._cut)

    def half_close(self) -> int:
        """Send the end of the stream (FIN) to the clients, still forwarding what they send; return to how many."""
        return self._call(self._half_close)

    def delay(self, delay_ms: float) -> None:
        """Hold each chunk back for `delay_ms`, in each direction."""
        self._call(lambda: setattr(self, "_delay_seconds", delay_ms / 1000))

    def limit(self, bytes_per_second: float | None) -> None:
        """Limit each direction of each connection; None takes the limit off."""
        self._call(lambda: setattr(self, "_bytes_per_second", bytes_per_second))

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def close(self) -> None:
        """Reset everything and stop listening. Safe to call twice."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_CLOSE_TIMEOUT_SECONDS)
        # A connection that comes in the very last moment may leave a transport that nothing of the loop closes: it is
        # collected here, and not in the midst of another test, which would be blamed for it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- in the loop's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._end_tasks())
        self._loop.close()

    async def _end_tasks(self) -> None:
        """What connections left running ends within the loop, not by the garbage collector after it."""
        own = asyncio.current_task()
        # What the tasks' ends have just reset is closed in the loop's next turns, and a connection that was being
        # accepted may begin in them.
        for _ in range(_ACCEPT_TURNS):
            # Again until there is none: the end of one that was accepting begins the one that would have served.
            while tasks := [task for task in asyncio.all_tasks() if task is not own]:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._cut()
            await asyncio.sleep(0)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener)
        await self._closing.wait()
        server.close()
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call(self, action: Callable[[], _Result]) -> _Result:
        """Run `action` in the loop's thread and return its result: state is only ever touched there."""

        async def run() -> _Result:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CLOSE_TIMEOUT_SECONDS)

    def _set(self, fault: Fault) -> None:
        self._fault = fault
        for link in list(self._links):
            if fault is Fault.REFUSE or (fault is Fault.PASS and link.tainted):
                link.reset()

    def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def _half_close(self) -> int:
        links = [link for link in self._links if not link.client_ended]
        for link in links:
            link.client_ended = True
            link.client.write_eof()
        return len(links)

    def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        # Noted here, not in the task: one that is cancelled before its first step would leave the connection open.
        self.accepted += 1
        link = _Link(client)
        self._links.add(link)
        task = self._loop.create_task(self._serve_link(link, client_reader))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._end(link, task))

    def _end(self, link: _Link, task: asyncio.Task[None]) -> None:
        link.reset()
        self._links.discard(link)
        self._tasks.discard(task)

    async def _serve_link(self, link: _Link, client_reader: asyncio.StreamReader) -> None:
        try:
            if self._fault is Fault.REFUSE:
                return
            server_reader, link.server = await asyncio.open_connection(*self._target)
            pumps = asyncio.gather(
                self._pump(link, client_reader, link.server, Fault.SWALLOW_REQUESTS),
                self._pump(link, server_reader, link.client, Fault.SWALLOW_REPLIES),
            )
            await _first_of(pumps, asyncio.ensure_future(link.gone.wait()))
        except OSError:
            pass  # One end is gone or was never there: the other end learns it by the reset that follows.

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallowed_by: Fault
    ) -> None:
        """Copy one direction until its stream ends; delayed chunks wait in a queue, so latency costs no bandwidth."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_DELAYED_MAX)

        async def take() -> None:
            chunk = b"?"
            while chunk:
                chunk = await reader.read(_CHUNK_BYTES)
                await queue.put((self._loop.time() + self._delay_seconds, chunk))

        async def give() -> None:
            chunk = b"?"
            while chunk:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if self._fault in (Fault.BLACK_HOLE, swallowed_by):
                    await link.swallow(chunk)
                elif not (writer is link.client and link.client_ended):
                    await self._throttle(len(chunk))
                    await _forward(writer, chunk)

        copying = asyncio.gather(take(), give())
        try:
            await copying
        finally:
            copying.cancel()

    async def _throttle(self, size_bytes: int) -> None:
        """Wait as long as the chunk takes at the limited speed; at 0, until the limit changes."""
        while self._bytes_per_second == 0:  # noqa: ASYNC110 - rare, and simpler than an event for each change
            await asyncio.sleep(0.02)
        if self._bytes_per_second is not None:
            await asyncio.sleep(size_bytes / self._bytes_per_second)


async def _forward(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    """Send bytes on, or with none the end of the stream."""
    if chunk:
        writer.write(chunk)
        await writer.drain()
    elif writer.can_write_eof():
        writer.write_eof()


async def _first_of(work: asyncio.Future[tuple[None, None]], stop: asyncio.Future[bool]) -> None:
    """Wait for either, cancel both; when `work` failed, raise that."""
    both: set[asyncio.Future[Any]] = {work, stop}
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            work.result()
    finally:
        stop.cancel()
        work.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
