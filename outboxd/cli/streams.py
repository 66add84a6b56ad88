"""The standard streams as the shell left them: closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, TextIO

from outboxd.errors import UsageError

_ESCAPED: Final = "outboxd.escaped"
#: Of a write: no room, over a quota or the largest size of a file, a broken device.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CHUNK_BYTES: Final = 1 << 20


class OutputClosedError(Exception):
    """Whoever read standard output has gone away, or it was closed from the beginning."""


class ClosedOutput(io.TextIOBase):
    """Standard output that the shell closed (`>&-`): fine for a command that writes nothing."""

    def write(self, _: str) -> NoReturn:
        """Nobody can read it."""
        raise OutputClosedError


class ClosedInput(io.TextIOWrapper):
    """Standard input that the shell closed (`<&-`): there is nothing to read, which is not to be taken for nothing."""


def prepare() -> None:
    """Make the three streams such that a command can write to each, whatever the shell and the environment say.

    Raises:
        nothing; writing to a closed standard output raises OutputClosedError.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next connection would get this number, and what a library prints would go there.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = ClosedInput(Path(os.devnull).open("rb"))  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPED)


def read_input(less_than_bytes: int) -> bytes:
    """All of standard input; it is not read further than to find that it is too long.

    Raises:
        UsageError: it is closed, cannot be read, or has `less_than_bytes` or more.
    """
    content = bytearray()
    if isinstance(sys.stdin, ClosedInput):
        raise UsageError("standard input is closed, so there is nothing to read")
    try:
        while chunk := sys.stdin.buffer.read(_CHUNK_BYTES):
            content += chunk
            if len(content) >= less_than_bytes:
                raise UsageError(f"standard input has {less_than_bytes:,} bytes or more, which is too much")
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}; look at where it comes from") from error
    return bytes(content)


def is_full(error: OSError) -> bool:
    """Whether what a file is written to, and not its name, is why it cannot be written: a full disk, most often."""
    return error.errno in _FULL


def is_unwritable(error: OSError) -> bool:
    """Whether `error` came of writing to standard output, which cannot be written: a full disk, most often."""
    # A descriptor may be one to read from.
    if is_full(error) or error.errno == errno.EBADF:
        return True
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def let_go_of_output() -> None:
    """The interpreter flushes standard output once more as it leaves; there it must not fail again."""
    _let_go_of(sys.stdout)


@contextmanager
def errors_told() -> Iterator[None]:
    """Within it something is told on standard error. Where that cannot be written nobody can be told, and the exit code
    has to say it alone.
    """
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _let_go_of(sys.stderr)


def _let_go_of(stream: TextIO) -> None:
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, as JSON escapes it: right in JSON, and plain enough elsewhere."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


codecs.register_error(_ESCAPED, _escaped)
