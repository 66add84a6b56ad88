"""The broker's port. The publisher works on the relay's own thread, since its delivery callbacks must not fight another
thread for the interpreter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, ProgressRow, Report
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement


class Publisher(Protocol):
    """The broker, as the relay sees it. Reports of `publish` come by `take_reports`, one for each record it took."""

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer, from index `start` on; return the index of the first one that it did not take.

        A record that the client refuses is taken: its report carries the refusal. Fewer are taken only when the
        producer's queue is full.
        """
        ...

    def placement(self, topic: str) -> Placement | None:
        """Return how the producer places the topic's records, to foretell it; None while that is not known."""
        ...

    def is_missing(self, topic: str) -> bool:
        """Say whether the cluster told lately that there is no such topic; no may mean that it told nothing."""
        ...

    def misplaced(self, topic: str) -> None:
        """A record of the topic went elsewhere than was foretold: forget how it is placed, and find out anew."""
        ...

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        ...

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key, of which nothing is with the producer, to one that stops where one fails; return how
        many of the first ones it took, which may be none.

        Those that are delivered are reported by `take_reports`, in order; of the others nothing is.
        """
        ...

    def chain_failure(self) -> ChainFailure | None:
        """Return why chains stopped, once no more of their reports are worth a wait; None while they go. No further one
        is taken from the failure on.
        """
        ...

    def end_chains(self) -> Collection[int]:
        """Stop all chains where they are, so that others may begin. The last reports of what was delivered are in the
        next `take_reports`; nothing else of them is ever reported. Return the ids of those that are certainly in no
        log.
        """
        ...

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks; return early when some were served."""
        ...

    def flush(self, timeout_seconds: float) -> None:
        """Send what is queued at once, without lingering for more, and serve delivery callbacks meanwhile; return
        once nothing is in flight.
        """
        ...

    def questioned(self) -> Collection[int]:
        """Return the ids of records that failed, and whose reports come once the cluster was asked why. What is not
        among them any more is in the next `take_reports`.
        """
        ...

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        ...

    def committed(self) -> int | None:
        """Return the last Kafka transaction whose reports were taken since the last call; None without transactions."""
        ...

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """These rows, of all earlier transactions, cannot be settled: state them in progress records too, from now on
        and instead of those given before.
        """
        ...

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        """Return the last transaction up to that of `committed` whose progress record states such rows, and these."""
        ...

    def settled(self, transaction: int) -> None:
        """The rows of all transactions up to this one are settled."""
        ...

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and read what it committed above the transaction `settled`.

        Answers Recovered or RecoverFailed by the mailbox. Only asked of a transactional producer.
        """
        ...

    def connection_trouble(self) -> str | None:
        """Return what was said lately of a connection to a broker that came to nothing."""
        ...

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error that ended the producer, or None while it works."""
        ...

    def rebuild(self) -> None:
        """Replace a failed producer. Reports of the old one never come any more."""
        ...

    def purge(self) -> None:
        """Drop what was not sent yet: its outcome is nobody's business any more."""
        ...
