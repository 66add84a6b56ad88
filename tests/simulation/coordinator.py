"""Kafka's transaction coordinator for one `transactional.id`, and what readers of committed records see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.database import Row
from tests.simulation.timeline import Timeline

Committed = Callable[[str, int, int, Row], None]


@dataclass(slots=True)
class OpenTransaction:
    """What one producer appended since it began: readers see it once it is committed."""

    number: int
    records: list[tuple[str, int, int, Row]] = field(default_factory=list)
    progress: list[bytes] = field(default_factory=list)


class Coordinator:
    """Knows the epoch of the producer that may write, and its open transaction."""

    def __init__(self, timeline: Timeline, on_commit: Committed, timeout_seconds: float) -> None:
        self._timeline = timeline
        self._on_commit = on_commit
        self._timeout_seconds = timeout_seconds
        self._begun = 0
        self.epoch = 0
        self.open: OpenTransaction | None = None
        self.progress: list[bytes] = []
        self.committed: set[tuple[str, int, int]] = set()
        self.commits = self.aborts = self.timeouts = 0

    def init(self) -> int:
        """Fence every producer before, abort what it had open, and return the new epoch."""
        self._abort()
        self.epoch += 1
        return self.epoch

    def join(self, epoch: int) -> OpenTransaction | None:
        """Return the open transaction of this epoch, begun where none is; None for a producer that was fenced."""
        if epoch != self.epoch:
            return None
        if self.open is None:
            self._begun += 1
            begun = self.open = OpenTransaction(self._begun)
            self._timeline.after(self._timeout_seconds, lambda: self._time_out(begun))
        return self.open

    def _time_out(self, begun: OpenTransaction) -> None:
        if self.open is begun:
            self.timeouts += 1
            self._abort()
            self.epoch += 1

    def end(self, epoch: int, *, commit: bool) -> bool:
        """Commit or abort; return False for a producer that was fenced."""
        if epoch != self.epoch:
            return False
        if commit:
            self._commit()
        else:
            self._abort()
        return True

    def _commit(self) -> None:
        transaction, self.open = self.open, None
        if transaction is None:
            return
        self.commits += 1
        self.progress += transaction.progress
        for topic, partition, offset, row in transaction.records:
            self.committed.add((topic, partition, offset))
            self._on_commit(topic, partition, offset, row)

    def _abort(self) -> None:
        if self.open is not None:
            self.open = None
            self.aborts += 1
