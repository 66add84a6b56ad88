"""What the relay asks of chains, answered by a publisher whose transactions keep the order of all that is in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from outboxd.policy.exchange.messages import ChainFailure
from outboxd.policy.rows.records import Record


class NoChains:
    """A part of exactly-once delivery's publisher."""

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Take none: many records of a key go in one transaction anyway."""
        del records
        return 0

    def chain_failure(self) -> ChainFailure | None:
        """There are no chains."""
        return None

    def end_chains(self) -> Collection[int]:
        """There are no chains."""
        return ()
