"""The terminal while `top` owns it: single keys without Enter, and a wait that a key ends."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUIT_KEYS = frozenset("qQ\x03\x04")


@contextmanager
def single_keys() -> Iterator[int | None]:
    """Let keys come without Enter and without echo; yields the descriptor to read, None where there is no terminal."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        former = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, termios.error):
        yield None
        return
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, former)


def wait_for_quit(descriptor: int | None, seconds: float) -> bool:
    """Wait so long, or until a key is pressed; say whether it asks to leave."""
    readable, _, _ = select.select([] if descriptor is None else [descriptor], [], [], seconds)
    if descriptor is None or not readable:
        return False
    pressed = os.read(descriptor, 64).decode(errors="replace")
    return not pressed or not QUIT_KEYS.isdisjoint(pressed)
