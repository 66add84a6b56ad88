"""The ports to what is around the loop: time, chance, and the mail of other threads."""

from __future__ import annotations

from typing import Protocol

from outboxd.policy.exchange.messages import Event


class Clock(Protocol):
    """A clock that never goes back."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        ...


class Mailbox(Protocol):
    """Where other threads leave events for the relay."""

    def take(self) -> list[Event]:
        """Return what came since the last call, without waiting."""
        ...

    def wait(self, timeout_seconds: float) -> None:
        """Return when something is there, or after `timeout_seconds`."""
        ...


class Dice(Protocol):
    """A source of randomness."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...
