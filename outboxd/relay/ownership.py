"""Ownership: how the relay comes to own the outbox, begins anew, and stands down.

    standing by ──lease granted──▶ load ──▶ relay ──lease lost──▶ standing by
                                    ▲         │ the producer is renewed, or ended with outcomes unknown
                                    └─────────┘

Each beginning makes memory and all that works on it anew: nothing that was true before is trusted then. What an
ownership before asked of the database may be answered only in the next one; such answers are *stale*. Nothing is loaded
before they came, since what is still being written belongs to what is read then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outboxd.policy.blame.cause import cause
from outboxd.policy.blame.routes import Route
from outboxd.policy.careful import PlannedEnd
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.relay.fetch.reading import READS, Reading
from outboxd.relay.ports import DeliveryFault, Reconfigured, Settled, SettleFailed
from outboxd.relay.publish.producer_ends import ProducerEnds
from outboxd.relay.publish.publishing import Publishing
from outboxd.relay.resting import Resting
from outboxd.relay.settle.writing import WRITES, Writing
from outboxd.relay.state import Ports, State
from outboxd.relay.watch import Watch

RENEWAL_SECONDS_MAX = 10.0
"""So long a renewal waits for the producer's reports; what it never reports then goes again by the new one."""
PROBED_SECONDS = 2.0
"""So long it does where only topics on hold, or missing ones, are still tried."""

RECONFIGURED = "its configuration changed"
REPLAYS_CHANGED = "somebody took back or changed a replay that was under way"
"""Why a producer is renewed, beside what `TopicsChanged` says; the last is so that all that is held is loaded anew."""


class Ownership:
    """The present ownership's memory and its parts, which the loop works with; or those of one that stands by, whose
    `state.token` is None.
    """

    def __init__(
        self,
        ports: Ports,
        limits: RelayLimits,
        routes: Sequence[Route],
        default_route: Route,
        *,
        pipelined: bool,
    ) -> None:
        """Stand by. `pipelined` is for a producer that keeps order by itself."""
        self._ports = ports
        self._limits = limits
        self._routes = routes
        self._default_route = default_route
        self._pipelined = pipelined
        self._listening = False
        self._is_draining = False
        self._renewed_for = ""
        self.stale_reads = 0
        self.stale_settlements = 0
        self._producer_ends = ProducerEnds()
        self._begin(None)

    def _begin(self, token: int | None, in_doubt: Iterable[int] = ()) -> None:
        """Start as a new owner does, or stand by without a token: nothing in memory is true any more but that these
        rows are in doubt.
        """
        self.state = State(
            self._ports,
            self._limits,
            self._routes,
            self._default_route,
            token=token,
            pipelined=self._pipelined,
            draining=self._is_draining,
            in_doubt=in_doubt,
        )
        # Its parts count failures anew; those before them waited for answers that are nobody's business any more.
        self._ports.observer.database_not_asked((*READS, *WRITES))
        self.renewing_until: float | None = None
        self.publishing = Publishing(self.state, self._producer_ends)
        self.reading = Reading(self.state, listening=self._listening)
        self.writing = Writing(self.state)
        self.watch = Watch(self.state)
        self.resting = Resting(self.state, self.publishing, self.reading, self.writing, self.watch)

    # Beginning, and beginning anew.

    def own(self, token: int) -> None:
        """The lease was granted."""
        if self.state.token is not None:
            self.stand_down("the lease was acquired anew")
        self._begin(token)
        self._load_when_answered()

    def stale_read_answered(self) -> None:
        """What an ownership before read was answered; it may have changed since."""
        self.stale_reads -= 1
        self._load_when_answered()

    def stale_settlement_answered(self, event: Settled | SettleFailed) -> None:
        """What an ownership before wrote was answered."""
        self.stale_settlements -= 1
        if isinstance(event, Settled) and not event.fenced:
            settlement = event.settlement
            self.state.in_doubt.difference_update(settlement.delivered_ids, (each[0] for each in settlement.dead))
        self._load_when_answered()

    def _load_when_answered(self) -> None:
        """Load once nothing of an ownership before is under way: what it still writes belongs to what is read then."""
        is_answered = not self.stale_reads and not self.stale_settlements
        if is_answered and self.state.token is not None and not self._is_draining:
            self.reading.loading.begin_from(self._producer_ends.next_from, self._ports.clock.monotonic())

    def _begin_anew(self, token: int | None) -> None:
        """Start as a new owner does, with a new producer; what is under way belongs to the ownership before."""
        now = self._ports.clock.monotonic()
        if token is None:
            self.state.aftermath.holding.leave_all(now)
        else:
            self.state.aftermath.holding.let_all_go(now)
        self.watch.end(goes_on=token is not None)
        # The next ownership begins with the answer of what is read.
        self.reading.hurry()
        self.stale_reads += self.state.reading is not None
        self.stale_settlements += self.state.settling.under_way is not None
        self._ports.publisher.rebuild()
        # Without the lease, what is unsettled is the successor's; and what transactions did is always found out.
        keeps_doubt = token is not None and not self._pipelined
        untried = self.state.lanes.storms.untried()
        self._begin(token, self.state.left_in_doubt() if keeps_doubt else ())
        if token is not None:
            self.state.aftermath.holding.try_all_again(untried, now)

    def resolve(self, failure: DeliveryFault) -> None:
        """The transactional producer ended with outcomes unknown, by plan or not: own the outbox as if anew, so that
        they are resolved by the progress records before anything is relayed again; later each time where they fail in
        a row.
        """
        unsettled = len(self.state.ledger)
        is_planned = isinstance(failure, PlannedEnd)
        if not is_planned:
            self._producer_ends.ended(self._ports.clock.monotonic())
        self._begin_anew(self.state.token)
        if is_planned:
            self._ports.observer.event("producer_renewed", unknown_rows=unsettled, reason=failure.text)
        else:
            self._ports.observer.event(
                "producer_rebuilt",
                error_code=failure.fault.name,
                cause=cause(failure.fault, failure.text),
                unknown_rows=unsettled,
            )
        self._load_when_answered()

    # Renewing.

    def reconfigure(self, event: Reconfigured) -> None:
        """Live within another configuration from now on; where it is one of the producer too, renew that."""
        self._limits, self._routes, self._default_route = event.limits, event.routes, event.default_route
        self.state.reconfigure(event.limits, event.routes, event.default_route)
        self.reading.pace(listening=self._listening)
        if event.renews:
            self.renew_producer(RECONFIGURED)

    def renew_producer(self, reason: str) -> None:
        """Take a new producer, once all is in that this one has to report; at once where nobody owns."""
        if self._is_draining:
            return
        if self.state.token is None:
            self._ports.publisher.rebuild()
        else:
            self._begin_renewal(self._ports.clock.monotonic(), reason)

    def listen(self, *, active: bool) -> None:
        """Notifications come from now on, or do not."""
        self._listening = active
        self.reading.pace(listening=active)

    def _begin_renewal(self, now: float, reason: str) -> None:
        if self.renewing_until is None:
            self.renewing_until = now + RENEWAL_SECONDS_MAX
            self._renewed_for = reason
            self.state.draining = True
            self.state.drop_unpublished()

    def consider_renewal(self, now: float) -> None:
        """Once nothing is in flight, begin as a new owner does, with a new producer, under the same lease."""
        if self._is_draining or self.state.token is None:
            return
        if self.state.wants_reload:
            self._begin_renewal(now, REPLAYS_CHANGED)
        if self.renewing_until is None:
            return
        is_probed = now >= self.renewing_until - RENEWAL_SECONDS_MAX + PROBED_SECONDS
        is_drained = (
            self.state.is_drained
            or self.state.is_drained_but_for_refused
            or (is_probed and self.state.is_drained_but_for_tries)
        )
        if not is_drained and now < self.renewing_until:
            return
        unsettled = 0 if self.state.is_drained else len(self.state.ledger)
        self._ports.publisher.purge()
        self._begin_anew(self.state.token)
        self._load_when_answered()
        self._ports.observer.event("producer_renewed", unknown_rows=unsettled, reason=self._renewed_for)
        self._duplicates_possible(unsettled)

    # Ending.

    def stand_down(self, reason: str) -> None:
        """Ownership ended, or cannot be trusted: nothing is produced any more, and what is unsettled is the
        successor's.
        """
        unsettled, token = len(self.state.ledger), self.state.token
        # What was never sent is no duplicate when the successor sends it.
        self.state.drop_unpublished()
        sent = len(self.state.ledger)
        self._ports.publisher.purge()
        self._begin_anew(None)
        if token is not None:
            self._ports.lease.give_up(token)
        self._ports.observer.event("lease_lost", reason=reason, unsettled_rows=unsettled)
        self._duplicates_possible(sent)

    def _duplicates_possible(self, rows: int) -> None:
        if not self._pipelined:
            # What a transaction did is found out by whoever comes next.
            self._ports.observer.duplicates_possible(rows)

    def drain(self) -> None:
        """The relay is to end: nothing new is read any more, and what the producer took is settled."""
        self._is_draining = True
        self.state.draining = True
        self.reading.hurry()
        self._ports.observer.event("draining", in_memory=len(self.state.ledger))
        self.state.drop_unpublished()
