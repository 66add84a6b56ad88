"""The job that copies dead letters to Kafka: at least once, from the table, never on the relay's way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from outboxd.errors import BrokerUnavailableError
from outboxd.policy.exchange.dead_letter_copies import DeadCopy, Sent


class CopyRows(Protocol):
    """The table."""

    def waiting(self) -> list[DeadCopy]:
        """Return the next ones to copy."""
        ...

    def copied(self, letters: Sequence[DeadCopy]) -> None:
        """Note that these are in Kafka."""
        ...


class Copier(Protocol):
    """The topic."""

    def send(self, letters: Sequence[DeadCopy], stop: threading.Event) -> Sent:
        """Send copies; return what was acknowledged, and what kept others from it."""
        ...


class DeadLetterCopies:
    """Copies what waits, a batch at a time: sent, acknowledged, then noted. A crash in between copies it again."""

    def __init__(self, rows: CopyRows, copier: Copier, stop: threading.Event, is_owner: Callable[[], bool]) -> None:
        """Only the owner of the outbox copies; `stop` ends a run between two batches."""
        self._rows = rows
        self._copier = copier
        self._stop = stop
        self._is_owner = is_owner

    def run(self) -> int:
        """Copy all that waits and return how many.

        Raises:
            BrokerUnavailableError: the topic does not take them; those that it took are noted.
        """
        copied = 0
        while self._is_owner() and not self._stop.is_set():
            letters = self._rows.waiting()
            if not letters:
                break
            sent = self._copier.send(letters, self._stop)
            if sent.acknowledged:
                # Whatever became of the others: they would else be copied again with these, as often as that fails.
                self._rows.copied(sent.acknowledged)
                copied += len(sent.acknowledged)
            if sent.failure:
                raise BrokerUnavailableError(sent.failure)
            if not sent.acknowledged:
                break
        return copied
