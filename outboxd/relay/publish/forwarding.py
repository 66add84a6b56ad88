"""A publisher within another: the base of those that add something to some calls and pass all others on.

Such a publisher stands between the relay and the producer, so it answers as the port says in every call: whoever
derives from this states only the calls to which it adds something.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, ProgressRow, Report
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement
from outboxd.relay.ports import Publisher


class ForwardingPublisher:
    """Implements `Publisher` by the one within. Lives on the relay's thread; each call is described there."""

    def __init__(self, within: Publisher) -> None:
        """`within` is the publisher that does the work."""
        self._within = within

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on; return the index of the first one not taken."""
        return self._within.publish(records, start)

    def placement(self, topic: str) -> Placement | None:
        """Return how the producer places the topic's records, to foretell it; None while that is not known."""
        return self._within.placement(topic)

    def is_missing(self, topic: str) -> bool:
        """Say whether the cluster told lately that there is no such topic."""
        return self._within.is_missing(topic)

    def misplaced(self, topic: str) -> None:
        """A record of the topic went elsewhere than was foretold: forget how it is placed, and find out anew."""
        self._within.misplaced(topic)

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when it cannot be taken now."""
        return self._within.publish_alone(record)

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key to a producer that stops where one fails; return how many it took."""
        return self._within.publish_chain(records)

    def chain_failure(self) -> ChainFailure | None:
        """Return why chains stopped, once no more of their reports are worth a wait."""
        return self._within.chain_failure()

    def end_chains(self) -> Collection[int]:
        """Stop all chains where they are; return the ids of those that are certainly in no log."""
        return self._within.end_chains()

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks; return early when some were served."""
        self._within.poll(timeout_seconds)

    def flush(self, timeout_seconds: float) -> None:
        """Send what is queued at once, and serve delivery callbacks meanwhile."""
        self._within.flush(timeout_seconds)

    def questioned(self) -> Collection[int]:
        """Return the ids of records that failed, and whose reports come once the cluster was asked why."""
        return self._within.questioned()

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        return self._within.take_reports()

    def committed(self) -> int | None:
        """Return the last Kafka transaction whose reports were taken since the last call; None without any."""
        return self._within.committed()

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """State these rows of earlier transactions, which cannot be settled, in progress records too."""
        self._within.restate(rows)

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        """Return the last transaction whose progress record states such rows, and these."""
        return self._within.restated()

    def settled(self, transaction: int) -> None:
        """The rows of all transactions up to this one are settled."""
        self._within.settled(transaction)

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and read what it committed above the transaction `settled`."""
        self._within.begin_recover(settled, lineage)

    def connection_trouble(self) -> str | None:
        """Return what was said lately of a connection to a broker that came to nothing."""
        return self._within.connection_trouble()

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error that ended the producer, or None while it works."""
        return self._within.failure()

    def rebuild(self) -> None:
        """Replace a failed producer. Reports of the old one never come any more."""
        self._within.rebuild()

    def purge(self) -> None:
        """Drop what was not sent yet: its outcome is nobody's business any more."""
        self._within.purge()
