"""The journal's own protocol: an entry is one datagram to journald (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).

Spoken here by the standard library, whose sockets leave the interpreter to the other threads while they wait. A
journald that stands still takes nothing more, and who waits for it within C holds up every thread of the daemon.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/systemd/journal/socket")
_BUFFER_BYTES: Final = 8 << 20
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def send(entry: Mapping[str, object], path: Path = SOCKET) -> None:
    """Send one entry to the journald that listens at `path`; waits where that is slow.

    Raises:
        OSError: nobody takes it.
    """
    datagram = b"".join(_field(name, str(value)) for name, value in entry.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        # Without the right to so much, the kernel gives what it may.
        with contextlib.suppress(OSError):
            journald.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        journald.connect(str(path))
        try:
            journald.send(datagram)
        except OSError as refused:
            if refused.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_by_file(journald, datagram)


def _send_by_file(journald: socket.socket, content: bytes) -> None:
    """What is too long for a datagram goes as a sealed file, which nobody can change any more."""
    descriptor = os.memfd_create("outboxd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(journald, [b""], [descriptor])


def _field(name: str, value: str) -> bytes:
    """A line `NAME=value`; a value of several lines is told with its length before it."""
    text = value.encode(errors="backslashreplace")
    if b"\n" not in text:
        return b"%s=%s\n" % (name.encode(), text)
    return b"%s\n%s%s\n" % (name.encode(), len(text).to_bytes(8, "little"), text)
