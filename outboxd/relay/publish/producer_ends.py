"""Producers that end in a row: the first is replaced at once, those after it later each time.

What ends one may have passed with it, and what ends the next one too has not: replaced at once it would only ask the
brokers and fill the log.
"""

from __future__ import annotations

from outboxd.policy.blame.backoff import probe_delay_seconds

IN_A_ROW_SECONDS = 10.0
"""A producer that ends so soon after the one before was replaced ends in a row with it: what ends them has not
passed."""


class ProducerEnds:
    """Says when the next producer may begin. Times are monotonic seconds."""

    def __init__(self) -> None:
        """None has ended yet."""
        self._in_a_row = 0
        self.next_from = float("-inf")
        """When the one after the last that ended may begin."""

    def ended(self, now: float) -> None:
        """One has ended."""
        self._in_a_row = self._in_a_row + 1 if now < self.next_from + IN_A_ROW_SECONDS else 0
        self.next_from = now + (probe_delay_seconds(self._in_a_row - 1) if self._in_a_row else 0.0)
