"""The process that daemons of tests are forked from: it has loaded what a daemon loads, and does nothing else.

python -m tests.support.nursery_process DESCRIPTOR: the end of a `SOCK_SEQPACKET` pair on which orders arrive, see
`tests.support.nursery`. It ends with the other end, and each daemon with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ORDER_BYTES_MAX = 200_000
DESCRIPTORS = 3
LOADED = ("outboxd.cli", "outboxd.cli.run", "outboxd.config", "outboxd.daemon.daemon", "psycopg_binary")
"""What every daemon has loaded by the time that it relays; whatever else it loads it loads itself."""
_SET_DEATH_SIGNAL = 1


@dataclass(frozen=True)
class Order:
    """One daemon: what it runs, with what arguments, in what surroundings."""

    module: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    directory: str


class Nursery:
    """Forks where it is told to, and tells how each child ended."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._told: dict[int, socket.socket] = {}
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._handler = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def serve(self) -> Order | None:
        """Serve to the end of all orders, and return None; in a child, return what it was made for."""
        while True:
            ready, _, _ = select.select([self._orders, self._woken], [], [])
            if self._woken in ready:
                self._woken.recv(4096)
                self._tell_ends()
            if self._orders in ready:
                message, descriptors, _, _ = socket.recv_fds(self._orders, ORDER_BYTES_MAX, DESCRIPTORS)
                if not message:
                    return None
                order = Order(**json.loads(message))
                if self._is_child(order, descriptors):
                    return order

    def _is_child(self, order: Order, descriptors: Sequence[int]) -> bool:
        teller, out, errors = descriptors
        nursery = os.getpid()
        if (pid := os.fork()) != 0:
            self._told[pid] = socket.socket(fileno=teller)
            self._told[pid].send(pid.to_bytes(4, "little"))
            os.close(out)
            os.close(errors)
            return False
        os.close(teller)
        self._leave()
        _settle_in(order, nursery, out, errors)
        return True

    def _leave(self) -> None:
        """Have nothing of the nursery in a child."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._handler)
        for end in (self._orders, self._woken, self._waker, *self._told.values()):
            end.close()

    def _tell_ends(self) -> None:
        for pid in list(self._told):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self._told.pop(pid) as teller, contextlib.suppress(BrokenPipeError):
                    teller.send(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))


def _settle_in(order: Order, nursery: int, out: int, errors: int) -> None:
    """Make of a fork what `spawn` makes of a process: it dies with its parent and has a session of its own."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    os.setsid()
    for descriptor, standard in ((out, 1), (errors, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.environ)
    time.tzset()
    sys.argv = [order.module, *order.arguments]


def main() -> None:
    """Load what daemons load, then serve; a child leaves here as `python -m MODULE` does."""
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    # A child that looks for cycles would else write to, and so copy, all that it has in common with the others.
    gc.freeze()
    order = Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
