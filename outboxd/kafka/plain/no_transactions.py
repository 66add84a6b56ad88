"""What the relay asks of transactions, answered by a publisher that has none."""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.errors import BugError
from outboxd.policy.exchange.messages import ProgressRow


class NoTransactions:
    """A part of at-least-once delivery's publisher."""

    def committed(self) -> int | None:
        """There are no transactions."""
        return None

    def settled(self, transaction: int) -> None:
        """There are no transactions."""

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """There are no progress records."""

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        """There are no progress records."""
        return 0, ()

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Raise: the plain producer has nothing to recover, and only a transactional one is asked."""
        raise BugError(f"a plain producer was asked to recover above {settled} of {lineage}")
