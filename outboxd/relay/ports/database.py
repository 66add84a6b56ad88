"""The database's ports are asynchronous: `begin_…` returns at once, and the answer comes as one event by the mailbox.
At most one fetch (or load, or sweep) and one settlement are under way at a time.
"""

from __future__ import annotations

from typing import Protocol

from outboxd.policy.exchange.requests import IMPATIENT, FetchRequest, Patience, Settlement, SweepRequest


class OutboxStore(Protocol):
    """The database, as the relay sees it."""

    def begin_load(self) -> None:
        """Read what a new owner must know; answers Loaded or FetchFailed."""
        ...

    def begin_fetch(self, request: FetchRequest, delay_seconds: float = 0.0, patience: Patience = IMPATIENT) -> None:
        """Read pending records, no sooner than `delay_seconds` from now, and again while nothing shows, as `patience`
        says; answers Fetched, Arrived or FetchFailed.
        """
        ...

    def hurry_fetch(self) -> None:
        """Have a fetch that waits ask at once, and answer whatever it finds. One that comes next may be hurried
        instead.
        """
        ...

    def begin_sweep(self, request: SweepRequest) -> None:
        """Read a chunk of the pending index; answers Swept or FetchFailed."""
        ...

    def begin_settle(self, settlement: Settlement, token: int) -> None:
        """Write outcomes under the lease's token; answers Settled or SettleFailed."""
        ...


class Lease(Protocol):
    """The right to relay an outbox, as the relay sees it. Grants and losses come by the mailbox."""

    def trusted_until(self) -> float:
        """Return the monotonic time up to which nobody else can own the outbox."""
        ...

    def give_up(self, token: int, *, drained: bool = False, emptied: bool = False) -> None:
        """Release the lease of this token at once, so that another daemon need not wait for its end; one that was
        acquired anew meanwhile is kept.

        `drained`: nothing that this owner published is unsettled. `emptied`: nor is there anything pending that one
        before it may have published.
        """
        ...
