"""The relay: the one loop that moves committed rows to the broker and their outcomes back.

Each turn takes the mail, publishes what was admitted, takes the reports, settles, asks for more, and rests until
something happens. All state is the loop's own; other threads only leave events in the mailbox.

A life: standing by ──lease granted──▶ load ──▶ relay ──lease lost──▶ standing by; a stop drains, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outboxd.policy.fencings import MOVED, RIVAL
from outboxd.policy.routes import Route
from outboxd.relay.ending import RelayEnd, consider_empty
from outboxd.relay.ports import (
    DeliveryFault,
    Event,
    Fetched,
    FetchFailed,
    LeaseGranted,
    LeaseLost,
    Listening,
    Loaded,
    Reconfigured,
    Recovered,
    RecoverFailed,
    Settled,
    SettleFailed,
    StopRequested,
    Swept,
    TransactionEnded,
    Woken,
)
from outboxd.relay.publishing import Publishing
from outboxd.relay.reading import Reading
from outboxd.relay.resting import Resting
from outboxd.relay.state import Ports, RelayLimits, State
from outboxd.relay.watch import Watch
from outboxd.relay.writing import Writing

__all__ = ["Ports", "Relay", "RelayEnd", "RelayLimits"]

RENEWAL_SECONDS_MAX = 10.0
"""So long a renewal waits for the producer's reports; what it never reports then goes again by the new one."""


class Relay:
    """One outbox's relay. `run` until it ends; a single `turn` for tests and simulations."""

    def __init__(
        self,
        ports: Ports,
        limits: RelayLimits,
        routes: Sequence[Route] = (),
        default_route: Route | None = None,
        *,
        until_empty: bool = False,
        pipelined: bool = False,
    ) -> None:
        """`until_empty` ends the relay when nothing is left; `pipelined` is for a producer that keeps order by
        itself.
        """
        self._ports = ports
        self._limits = limits
        self._routes = routes
        self._default_route = default_route or Route()
        self._until_empty = until_empty
        self._pipelined = pipelined
        self._draining_until: float | None = None
        self._renewing_until: float | None = None
        self._listening = False
        self.end: RelayEnd | None = None
        self.turns = 0
        self.next_deadline = 0.0
        """When something is to be done though nothing comes, as of the last rest."""
        self.on_turn: Callable[[Relay], None] | None = None
        self._stale_reads = 0
        self._stale_settlements = 0
        self._begin(None)

    def _begin(self, token: int | None) -> None:
        """Start as a new owner does: nothing in memory is true any more."""
        self.state = State(
            self._ports,
            self._limits,
            self._routes,
            self._default_route,
            token=token,
            pipelined=self._pipelined,
            draining=self._draining_until is not None,
        )
        self._renewing_until = None
        self._publishing = Publishing(self.state)
        self._reading = Reading(self.state, listening=self._listening)
        self._writing = Writing(self.state)
        self._watch = Watch(self.state)
        self._resting = Resting(self.state, self._publishing, self._reading, self._writing, self._watch)

    @property
    def has_fetched(self) -> bool:
        """Whether the database answered a fetch of this ownership."""
        return self._reading.has_fetched

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop: it drains, and ends."""
        return self._draining_until is not None

    # The loop.

    def run(self) -> RelayEnd:
        """Relay until told to stop, or until nothing is left where that was asked for."""
        while self.end is None:
            self.turn()
        return self.end

    def turn(self) -> None:
        """One turn of the loop: the data's way, from the mailbox to the next rest."""
        self.turns += 1
        for event in self._ports.mailbox.take():
            self._take(event)
        now = self._ports.clock.monotonic()
        if self.state.token is not None:
            if now >= self._ports.lease.trusted_until():
                self._stand_down("the lease could not be renewed in time")
            else:
                self._relay(now)
        self._consider_renewal(now)
        self._consider_end(now)
        if self.on_turn is not None:
            self.on_turn(self)
        if self.end is None:
            self._rest(now)

    def _relay(self, now: float) -> None:
        self._publishing.take_back(now)
        if not self._stale_reads:
            # Asked first, so that the database reads while the producer is fed.
            self._reading.fetch(now)
        self._publishing.publish()
        self._publishing.report(now)
        self._reading.reported(now)
        failure = self._ports.publisher.failure() if self._pipelined else None
        if failure is not None:
            self._resolve(failure)
            return
        if not self._stale_settlements:
            self._writing.settle(now)
        self._watch.look(now)

    def _rest(self, now: float) -> None:
        own = [until for until in (self._draining_until, self._renewing_until) if until is not None]
        self.next_deadline = self._resting.next_deadline(
            now, own, may_read=not self._stale_reads, may_settle=not self._stale_settlements
        )
        self._resting.rest(now, self.next_deadline)

    # Mail.

    def _take(self, event: Event) -> None:
        match event:
            case Fetched() | Swept() | Loaded() | FetchFailed():
                self._take_answer(event)
            case Settled() | SettleFailed():
                self._take_settled(event)
            case LeaseGranted() | LeaseLost():
                self._take_lease(event)
            case StopRequested():
                self._drain()
            case TransactionEnded():
                pass  # The turn that it wakes takes the reports.
            case Woken():
                self._reading.woken()
            case Recovered() | RecoverFailed():
                self._reading.recovering.take(event)
            case Listening():
                self._listening = event.active
                self._reading.pace(listening=event.active)
            case Reconfigured():
                self._reconfigure(event)

    def _take_lease(self, event: LeaseGranted | LeaseLost) -> None:
        if isinstance(event, LeaseGranted):
            self._own(event.token)
        elif self.state.token is not None:
            self._stand_down(event.reason)

    def _take_answer(self, event: Fetched | Swept | Loaded | FetchFailed) -> None:
        if self._stale_reads:
            # Asked by an ownership that ended: what it says may have changed since.
            self._stale_reads -= 1
            self._load_when_answered()
            return
        match event:
            case Loaded() | Fetched() if event.fenced or event.moved:
                self.state.reading = None
                self._stand_down(MOVED if event.moved else RIVAL)
            case Fetched():
                self._reading.on_fetched(event)
            case Swept():
                self._reading.on_swept(event)
            case Loaded():
                self._reading.loading.on_loaded(event)
            case FetchFailed():
                self._reading.on_failed(event)

    def _take_settled(self, event: Settled | SettleFailed) -> None:
        if self._stale_settlements:
            self._stale_settlements -= 1
            self._load_when_answered()
        elif isinstance(event, SettleFailed):
            self._writing.on_failed(event)
        elif not self._writing.on_settled(event):
            self._stand_down(MOVED if event.moved else RIVAL)

    def _own(self, token: int) -> None:
        if self.state.token is not None:
            self._stand_down("the lease was acquired anew")
        self._begin(token)
        self._load_when_answered()

    def _load_when_answered(self) -> None:
        """Load once nothing of an ownership before is under way: what it still writes belongs to what is read then."""
        is_answered = not self._stale_reads and not self._stale_settlements
        if is_answered and self.state.token is not None and self._draining_until is None:
            self._reading.loading.begin()

    def _begin_anew(self, token: int | None) -> None:
        """Start as a new owner does, with a new producer; what is under way belongs to the ownership before."""
        # The next ownership begins with the answer of what is read.
        self._reading.hurry()
        self._stale_reads += self.state.reading is not None
        self._stale_settlements += self.state.settling.under_way is not None
        self._ports.publisher.rebuild()
        self._begin(token)

    def _resolve(self, failure: DeliveryFault) -> None:
        """The transactional producer ended with outcomes unknown: own the outbox as if anew, so that they are resolved
        by the progress records before anything is relayed again.
        """
        unsettled = len(self.state.ledger)
        self._begin_anew(self.state.token)
        self._ports.observer.event(
            "producer_rebuilt", error_code=failure.fault.name, cause=failure.text, unknown_rows=unsettled
        )
        self._load_when_answered()

    def _stand_down(self, reason: str) -> None:
        """Ownership ended, or cannot be trusted: nothing is produced any more, and what is unsettled is the
        successor's.
        """
        unsettled, token = len(self.state.ledger), self.state.token
        self._ports.publisher.purge()
        self._begin_anew(None)
        if token is not None:
            self._ports.lease.give_up(token)
        self._ports.observer.event("lease_lost", reason=reason, unsettled_rows=unsettled)
        self._ports.observer.duplicates_possible(unsettled)

    # Another configuration.

    def _reconfigure(self, event: Reconfigured) -> None:
        self._limits, self._routes, self._default_route = event.limits, event.routes, event.default_route
        self.state.reconfigure(event.limits, event.routes, event.default_route)
        self._reading.pace(listening=self._listening)
        if not event.renews or self._draining_until is not None:
            return
        if self.state.token is None:
            self._ports.publisher.rebuild()
            return
        self._begin_renewal(self._ports.clock.monotonic())

    def _begin_renewal(self, now: float) -> None:
        if self._renewing_until is None:
            self._renewing_until = now + RENEWAL_SECONDS_MAX
            self.state.draining = True
            self.state.drop_unpublished()

    def _consider_renewal(self, now: float) -> None:
        """Once nothing is in flight, begin as a new owner does, with a new producer, under the same lease."""
        if self._draining_until is not None or self.state.token is None:
            return
        if self.state.wants_reload:
            self._begin_renewal(now)
        if self._renewing_until is None:
            return
        if not self.state.is_drained and now < self._renewing_until:
            return
        unsettled = 0 if self.state.is_drained else len(self.state.ledger)
        self._ports.publisher.purge()
        self._begin_anew(self.state.token)
        self._load_when_answered()
        self._ports.observer.event("producer_renewed", unknown_rows=unsettled)
        self._ports.observer.duplicates_possible(unsettled)

    # Ending.

    def _drain(self) -> None:
        if self._draining_until is not None:
            self._finish("forced")
            return
        self._draining_until = self._ports.clock.monotonic() + self._limits.shutdown_timeout_seconds
        self.state.draining = True
        self._reading.hurry()
        self._ports.observer.event("draining", in_memory=len(self.state.ledger))
        self.state.drop_unpublished()

    def _consider_end(self, now: float) -> None:
        state = self.state
        if self._draining_until is not None:
            is_done = not state.in_flight and state.settling.is_empty and state.reading is None
            if state.token is None or is_done:
                self._finish("stopped")
            elif now >= self._draining_until:
                self._finish("shutdown_timeout")
        elif self._until_empty and state.token is not None and self._reading.loading.is_done:
            end = consider_empty(state, self._reading, self._watch, now)
            if end is not None:
                self._finish(end.reason, end.blocked_topics)

    def _finish(self, reason: str, blocked_topics: Sequence[str] = ()) -> None:
        unsettled = len(self.state.ledger)
        if self.state.token is not None:
            # A fetch may be under way: what it would show was never published by this owner.
            drained = reason in ("stopped", "empty") and self.state.is_settled and self.state.holds_nothing
            emptied = drained and reason == "empty"
            self._ports.lease.give_up(self.state.token, drained=drained, emptied=emptied)
        self.end = RelayEnd(reason, unsettled, blocked_topics)
        self._ports.observer.event("ended", reason=reason, unsettled_rows=unsettled)
