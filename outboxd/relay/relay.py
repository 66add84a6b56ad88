"""The relay: the one loop that moves committed rows to the broker and their outcomes back.

Each turn takes the mail, asks the database for more, publishes what was admitted, takes the reports, settles, and rests
until something happens. It asks first, so that the database reads while the producer is fed. All state is the loop's
own; other threads only leave events in the mailbox.

A life: standing by ──lease granted──▶ load ──▶ relay ──lease lost──▶ standing by; a stop drains, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outboxd.policy.blame.fencings import MOVED, RIVAL
from outboxd.policy.blame.routes import Route
from outboxd.relay.ending import FORCED, RelayEnd, consider_empty
from outboxd.relay.ownership import Ownership
from outboxd.relay.ports import (
    Arrived,
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
    TopicsChanged,
    TransactionEnded,
    Woken,
)
from outboxd.relay.state import Ports, RelayLimits, State

TRIED_SECONDS = 2.0
"""So long a drain still tries what PostgreSQL refuses to settle again and again, and topics on hold or missing."""

__all__ = ["Ports", "Relay", "RelayEnd", "RelayLimits"]


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
        self._until_empty = until_empty
        self._pipelined = pipelined
        self._draining_until: float | None = None
        self._tried_until = 0.0
        self.ownership = Ownership(ports, limits, routes, default_route or Route(), pipelined=pipelined)
        self.end: RelayEnd | None = None
        self.turns = 0
        self.next_deadline = 0.0
        """When something is to be done though nothing comes, as of the last rest."""
        self.on_turn: Callable[[Relay], None] | None = None

    @property
    def state(self) -> State:
        """What the present ownership keeps in memory."""
        return self.ownership.state

    @property
    def has_fetched(self) -> bool:
        """Whether the database answered a fetch of this ownership."""
        return self.ownership.reading.has_fetched

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
        if self.end is not None:
            # Told to stop a second time: the lease is given up, and nothing is done without it any more.
            return
        now = self._ports.clock.monotonic()
        if self.ownership.state.token is not None:
            if now >= self._ports.lease.trusted_until():
                self.ownership.stand_down("the lease could not be renewed in time")
            else:
                self._relay(now)
        self.ownership.consider_renewal(now)
        self._consider_end(now)
        if self.on_turn is not None:
            self.on_turn(self)
        if self.end is None:
            self._rest(now)

    def _relay(self, now: float) -> None:
        ownership = self.ownership
        ownership.publishing.take_back(now)
        if not ownership.stale_reads:
            # Asked first, so that the database reads while the producer is fed.
            ownership.reading.fetch(now)
        ownership.publishing.publish()
        ownership.publishing.report(now)
        ownership.reading.reported(now)
        failure = self._ports.publisher.failure() if self._pipelined else None
        if failure is not None:
            ownership.resolve(failure)
            return
        if not ownership.stale_settlements:
            ownership.writing.settle(now)
        ownership.watch.look(now)

    def _rest(self, now: float) -> None:
        ownership = self.ownership
        own = [until for until in (self._draining_until, ownership.renewing_until) if until is not None]
        if self.is_stopping and now < self._tried_until:
            own.append(self._tried_until)
        self.next_deadline = ownership.resting.next_deadline(
            now, own, may_read=not ownership.stale_reads, may_settle=not ownership.stale_settlements
        )
        ownership.resting.rest(now, self.next_deadline)

    # Mail.

    def _take(self, event: Event) -> None:
        match event:
            case Arrived() | Fetched() | Swept() | Loaded() | FetchFailed():
                self._take_answer(event)
            case Settled() | SettleFailed():
                self._take_settled(event)
            case LeaseGranted() | LeaseLost():
                self._take_lease(event)
            case StopRequested():
                self._drain()
            case TransactionEnded():
                # The turn that it wakes takes the reports.
                if self._pipelined:
                    self.ownership.watch.transaction_ended(self._ports.clock.monotonic())
            case Woken():
                self.ownership.reading.woken()
            case Recovered() | RecoverFailed():
                self.ownership.reading.recovering.take(event)
            case Listening() | Reconfigured() | TopicsChanged():
                self._take_change(event)

    def _take_change(self, event: Listening | Reconfigured | TopicsChanged) -> None:
        match event:
            case Listening():
                self.ownership.listen(active=event.active)
            case Reconfigured():
                self.ownership.reconfigure(event)
            case TopicsChanged():
                self.ownership.renew_producer(event.reason)

    def _take_lease(self, event: LeaseGranted | LeaseLost) -> None:
        ownership = self.ownership
        if isinstance(event, LeaseGranted):
            ownership.own(event.token)
        elif ownership.state.token is not None:
            ownership.stand_down(event.reason)

    def _take_answer(self, event: Arrived | Fetched | Swept | Loaded | FetchFailed) -> None:
        ownership = self.ownership
        if ownership.stale_reads:
            ownership.stale_read_answered()
            return
        answer = event.read() if isinstance(event, Arrived) else event
        match answer:
            case Loaded() | Fetched() if answer.fenced or answer.moved:
                ownership.state.reading = None
                ownership.stand_down(MOVED if answer.moved else RIVAL)
            case Fetched():
                ownership.reading.on_fetched(answer)
            case Swept():
                ownership.reading.on_swept(answer)
            case Loaded():
                ownership.reading.on_loaded(answer)
            case FetchFailed():
                ownership.reading.on_failed(answer)

    def _take_settled(self, event: Settled | SettleFailed) -> None:
        ownership = self.ownership
        if ownership.stale_settlements:
            ownership.stale_settlement_answered(event)
        elif isinstance(event, SettleFailed):
            ownership.writing.on_failed(event)
        elif not ownership.writing.on_settled(event):
            ownership.stand_down(MOVED if event.moved else RIVAL)

    # Ending.

    def _drain(self) -> None:
        if self.end is not None:
            # Told once more while it did not turn.
            return
        if self._draining_until is not None:
            self._finish(FORCED)
            return
        now = self._ports.clock.monotonic()
        self._draining_until = now + self.state.limits.shutdown_timeout_seconds
        self._tried_until = min(self._draining_until, now + TRIED_SECONDS)
        self.state.settling.refusals.hurry(now)
        self.ownership.drain()

    def _consider_end(self, now: float) -> None:
        ownership, state = self.ownership, self.ownership.state
        if self._draining_until is not None:
            is_done = not state.in_flight and state.settling.is_empty and state.reading is None
            if state.token is None or is_done:
                self._finish("stopped")
            elif now >= self._draining_until:
                self._finish("shutdown_timeout")
            elif now >= self._tried_until and state.is_drained_but_for_refused:
                self._finish("unsettled")
            elif now >= self._tried_until and state.is_drained_but_for_tries:
                # Of all other topics nothing goes before the next owner comes.
                self._finish("probing")
        elif self._until_empty and state.token is not None and ownership.reading.loading.is_done:
            end = consider_empty(state, ownership.reading, ownership.watch, now)
            if end is not None:
                self._finish(end.reason, end.blocked_topics)

    def _finish(self, reason: str, blocked_topics: Sequence[str] = ()) -> None:
        state = self.ownership.state
        unsettled = len(state.ledger)
        if state.token is not None:
            # A fetch may be under way: what it would show was never published by this owner.
            if reason != "empty":
                # First, since what the producer still has must not land behind what the next owner sends. Where all is
                # settled that is fire-and-forget at most, which nobody sends again.
                self._ports.publisher.purge()
            drained = reason in ("stopped", "empty") and state.leaves_no_doubt
            emptied = drained and reason == "empty"
            self._ports.lease.give_up(state.token, drained=drained, emptied=emptied)
        state.aftermath.holding.leave_all(self._ports.clock.monotonic())
        self.ownership.watch.end(goes_on=False)
        self.end = RelayEnd(reason, blocked_topics)
        self._ports.observer.event("ended", reason=reason, unsettled_rows=unsettled)
