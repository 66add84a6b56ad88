"""The port to whoever watches the relay."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Observer(Protocol):
    """Who watches the relay: metrics, logs and alerts. Called by the batch, on the relay's thread; it must not
    block.
    """

    @property
    def wants_rows(self) -> bool:
        """Whether each row is to be told by an event of its own."""
        ...

    def event(self, name: str, **fields: object) -> None:
        """Something worth a log line happened. `name` is stable."""
        ...

    def delivered(self, topic: str, rows: int, size_bytes: int) -> None:
        """Records of one topic were acknowledged."""
        ...

    def acknowledged_after(self, seconds: float, rows: int) -> None:
        """`rows` records were acknowledged about `seconds` after they were created."""
        ...

    def failed(self, topic: str, error_code: str, fault_class: str) -> None:
        """A delivery failed."""
        ...

    def retried(self, topic: str) -> None:
        """A record goes to the `retry` table."""
        ...

    def died(self, topic: str, reason: str) -> None:
        """A record goes to the dead-letter table."""
        ...

    def chained(self, rows: int) -> None:
        """So many records went together with others of their keys."""
        ...

    def duplicates_possible(self, rows: int) -> None:
        """So many records go again though they may be in the log."""
        ...

    def database_answered(self, during: Collection[str]) -> None:
        """A session of the relay's was answered: whatever `database_failed` told of it, during these, is over."""
        ...

    def database_not_asked(self, during: Collection[str]) -> None:
        """Nobody waits any more for what `database_failed` told of, during these; whether it would be answered is
        unknown.
        """
        ...

    def phase(self, name: str, seconds: float, rows: int) -> None:
        """One phase of the flow took so long for one batch."""
        ...
