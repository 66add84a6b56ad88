"""Reading: what is asked of the database, when, and what its answers mean."""

from __future__ import annotations

from outboxd.policy.blame.backoff import failure_pause_seconds
from outboxd.policy.fetch.pacing import Pacing
from outboxd.relay.admit.admission import Admitted
from outboxd.relay.admit.wishes import HOLDING_SECONDS
from outboxd.relay.fetch.forgetting import forget_idle_topics
from outboxd.relay.fetch.loading import LOAD, Loading
from outboxd.relay.fetch.orders import Orders
from outboxd.relay.fetch.recovering import Recovering
from outboxd.relay.fetch.sweeping import Sweeping
from outboxd.relay.ports import IMPATIENT, Fetched, FetchFailed, FetchRequest, Loaded, Patience, SweepRequest, Swept
from outboxd.relay.state import State

WANTED_PAUSE_SECONDS = 0.02
BLOCKED_PAUSE_SECONDS = 0.1
REPORTS_WAIT_SECONDS_MAX = 0.002
"""So much later may a fetch be for the reports of the one before, so that one turn takes both."""
AHEAD_SECONDS_MAX = 0.005
"""So long before it is due a fetch is given to the database's thread, which waits instead of the loop."""
PATIENCE_SECONDS_MAX = 1.0
"""So long may the database's thread ask again by itself, while nothing shows and nothing else is to be read."""
READS = ("load", "fetch", "sweep")
"""During what the reading session may fail."""
NO_WAIT = (0.0, IMPATIENT)
ORDERS_SECONDS = 1.0
"""So often operators are heard while memory is full and nothing is read."""


class Reading:
    """The database's reading side of the flow."""

    def __init__(self, state: State, *, listening: bool = False) -> None:
        """`state` is the relay's memory of this ownership; while `listening`, notifications come."""
        self._state = state
        limits = state.limits
        self._pacing = Pacing(limits.poll_interval_min_seconds, limits.poll_interval_max_seconds)
        self.sweeping = Sweeping(state)
        self.recovering = Recovering(state)
        self._orders = Orders(state)
        self.loading = Loading(state, self._orders, self.recovering)
        self.has_fetched = False
        self.read_all = False
        self.was_full = False
        """Whether the last fetch brought as many rows as it might: there is a backlog."""
        self._failures = 0
        self._pause = 0.0
        self.awaits_reports = False
        """Whether the next fetch is asked for when the reports of the last one's records are in, or soon after."""
        self._next_fetch_at = 0.0
        self._next_wanted_at = 0.0
        self._asked_at = 0.0
        self._patient_until = 0.0
        self._orders_at = 0.0
        self.pace(listening=listening)

    # Fetching.

    def woken(self) -> None:
        """Something may be pending: read soon."""
        self._pacing.woken()
        self._next_fetch_at = 0.0
        self.hurry()

    def hurry(self) -> None:
        """Have the database's thread answer now, where it would ask again by itself."""
        if self._state.reading is not None and self._state.ports.clock.monotonic() < self._patient_until:
            self._state.ports.store.hurry_fetch()

    def pace(self, *, listening: bool) -> None:
        """Take the present intervals; while notifications come, an idle outbox is read once in a while only."""
        limits = self._state.limits
        longest = limits.poll_interval_max_seconds
        if listening:
            longest = max(longest, limits.idle_poll_interval_seconds)
        self._pacing.within(limits.poll_interval_min_seconds, longest)
        self._next_fetch_at = 0.0
        self.hurry()

    def deadlines(self) -> list[float]:
        """Return when something is to be read next."""
        state = self._state
        if state.reading is not None or state.draining:
            # A fetch that cannot begin would be due for ever, and the loop would never rest.
            return []
        if not self.loading.is_done:
            return self.loading.deadlines()
        if state.is_crowded:
            return [self._orders_at]
        if not self.recovering.is_done:
            return self.recovering.deadlines()
        return [self._next_fetch_at, *self._other_deadlines()]

    def _other_deadlines(self) -> list[float]:
        """Return when something besides new records is to be read."""
        state = self._state
        deadlines = [self.sweeping.deadline]
        if state.wishes.wants_more:
            deadlines.append(self._next_wanted_at)
        if state.held.next_due_at is not None:
            deadlines.append(state.held.next_due_at)
        probe_at = state.lanes.breakers.next_probe_at()
        if probe_at is not None:
            deadlines.append(max(probe_at, self._next_wanted_at))
        return deadlines

    def fetch(self, now: float) -> None:
        """Ask for more where there is room and it is time."""
        state = self._state
        if state.reading is not None or state.draining:
            return
        if not self.loading.is_done:
            self.loading.begin_again(now)
            return
        if not self.recovering.is_done:
            self.recovering.begin_again(now)
            return
        if not (self.awaits_reports and now < self._next_fetch_at and self._wants_new_records_only(now)):
            self._fetch_more(now)

    def _fetch_more(self, now: float) -> None:
        state, limits = self._state, self._state.limits
        rows_max = min(limits.batch_rows, state.ledger.rows_free)
        bytes_max = min(limits.batch_bytes, state.ledger.bytes_free)
        state.is_crowded = len(state.ledger) > 0 and (
            rows_max < limits.fetch_rows_min or bytes_max < limits.fetch_bytes_min
        )
        state.wishes.look_at_holding(now)
        if state.is_crowded:
            if now >= self._orders_at:
                self._ask(state.wishes.request_for_orders(), now, NO_WAIT)
            return
        if self.sweeping.sweep(now, gives_way=now >= self._next_fetch_at):
            self.read_all = False
            return
        state.held.want_due(now)
        probing = state.probing
        has_probes = probing.look(now)
        for topic in probing.idle_topics:
            state.aftermath.holding.close_idle_breaker(topic, now)
        wait = NO_WAIT if has_probes else self._wait(now)
        if wait is None:
            return
        request = state.wishes.request(max(rows_max, 1), max(bytes_max, 1))
        if state.wishes.wants_more and not request.reads_again:
            # What was looked at of it waits behind something else of its key, and that may take long.
            self._next_wanted_at = now + BLOCKED_PAUSE_SECONDS
        self._ask(request, now, wait)
        self.awaits_reports = False

    def _wants_new_records_only(self, now: float) -> bool:
        """Whether nothing besides new records is to be read, or may come to be."""
        state = self._state
        may_be_due = state.is_crowded or len(state.held) or state.lanes.breakers.open or state.wishes.wants_more
        return not may_be_due and now < self.sweeping.next_at

    def _ask(self, request: FetchRequest, now: float, wait: tuple[float, Patience]) -> None:
        delay_seconds, patience = wait
        self._state.reading = request
        self._asked_at = now
        self._orders_at = now + ORDERS_SECONDS
        self._patient_until = now + patience.seconds
        self._state.ledger.fetch_begins()
        self._state.ports.store.begin_fetch(request, delay_seconds, patience)

    def _wait(self, now: float) -> tuple[float, Patience] | None:
        """Return how the next fetch is to wait and be patient, or None while it is not to be asked for yet."""
        delay_seconds = max(0.0, self._next_fetch_at - now)
        if delay_seconds > 0 and self._state.wishes.wants_more and now >= self._next_wanted_at:
            self._next_wanted_at = now + WANTED_PAUSE_SECONDS
            return NO_WAIT
        if delay_seconds > 0 and self.awaits_reports:
            return None
        if delay_seconds <= AHEAD_SECONDS_MAX:
            return delay_seconds, IMPATIENT
        patience = Patience(self._pause, self._patience_seconds(now))
        return (delay_seconds, patience) if delay_seconds <= patience.seconds else None

    def _patience_seconds(self, now: float) -> float:
        """Return for how long nothing but the next new record can matter: the loop need not hear of empty answers."""
        state = self._state
        is_idle = state.is_idle and not state.wishes.gaps and not state.lanes.pauses
        if not is_idle or self._pause < self._pacing.pause_seconds_max:
            return 0.0
        seconds_max = HOLDING_SECONDS if state.held.letters else PATIENCE_SECONDS_MAX
        return min(seconds_max, min(self._other_deadlines()) - now)

    def on_fetched(self, fetched: Fetched) -> None:
        """Admit what may go, note what the answer tells of retries, replays, discards and pauses."""
        state = self._state
        request, state.reading = state.reading, None
        if self._failures:
            self._answered()
        self.has_fetched = True
        if not isinstance(request, FetchRequest):
            return
        if request.forward:
            self.was_full = len(fetched.records) >= request.rows_max
        now = state.ports.clock.monotonic()
        state.aftermath.now_ms = fetched.now_ms
        # While it drains too: suspects are still sent alone then.
        given_at = self._asked_at + fetched.waited_seconds
        self._orders.on_pauses(fetched.pauses, given_at)
        if state.draining:
            state.ledger.fetch_ended()
            return
        state.wishes.took(request, now - given_at)
        admitted = self._admit(request, fetched, now)
        # What was left out is listed again once the next sweep began.
        self.sweeping.swept_empty &= self._orders.on_told(fetched)
        if fetched.holding is not None and request.holding_after is not None:
            state.wishes.holding_listed(fetched.holding.cursor, now)
            self._orders.on_holding(request.holding_after, fetched.holding, self._asked_at)
        if request.forward:
            # What there is no room for waits behind replays that do not go.
            self.read_all = not fetched.records and not (fetched.replays and state.held.takes_replays)
        state.ledger.fetch_ended()
        for gone in admitted.vanished:
            self._orders.on_vanished(gone)
        state.ready += admitted.ready
        forget_idle_topics(state, now)
        if request.forward:
            self._plan_next(len(fetched.records), bool(admitted.ready), now)
        if fetched.records:
            state.ports.observer.phase("fetch", now - given_at, len(fetched.records))

    def _admit(self, request: FetchRequest, fetched: Fetched, now: float) -> Admitted:
        state = self._state
        admitted = state.admission.take(request, fetched, now)
        for record, held in admitted.resumed:
            state.aftermath.admitted(record, held)
            if not (held.is_replay or state.pipelined):
                # It was tried, and a stop may drop it before it goes again.
                state.in_doubt.add(record.id)
        return admitted

    def _plan_next(self, rows: int, has_ready: bool, now: float) -> None:
        """After a read that showed so many rows, some of which may go."""
        state = self._state
        pause = 0.0 if self.was_full else self._pacing.after_read(rows)
        if len(state.held):
            # No notification tells that a retry is due, or that an operator replays or discards.
            pause = min(pause, state.limits.poll_interval_max_seconds)
        self._pause = pause
        self.awaits_reports = pause > 0 and not state.pipelined and has_ready
        self._next_fetch_at = now + pause + (REPORTS_WAIT_SECONDS_MAX if self.awaits_reports else 0.0)

    def reported(self, now: float) -> None:
        """While few rows come, the pause before the next fetch begins when those of the last one are acknowledged:
        that costs fewer fetches, each with a row or two more.
        """
        if self.awaits_reports and not self._state.in_flight:
            self.awaits_reports = False
            self._next_fetch_at = min(self._next_fetch_at, now + self._pause)
            self.fetch(now)

    # Answers of the load and the sweep, and failures.

    def on_loaded(self, loaded: Loaded) -> None:
        """Take what a new owner must know."""
        self._answered()
        self.loading.on_loaded(loaded)

    def _answered(self) -> None:
        """The session works. A sweep does not say so: it may be answered while each fetch, which follows it, fails."""
        self._failures = 0
        self._state.ports.observer.database_answered(READS)

    def on_swept(self, swept: Swept) -> None:
        """Take a chunk of the sweep."""
        self._state.reading = None
        self.sweeping.on_swept(swept)

    def on_failed(self, failed: FetchFailed) -> None:
        """Ask again, after a pause that grows, and read from the beginning."""
        state = self._state
        request, state.reading = state.reading, None
        self._failures += 1
        now = state.ports.clock.monotonic()
        pause = failure_pause_seconds(self._failures)
        self._next_fetch_at = self._next_wanted_at = self.sweeping.next_at = now + pause
        asked = state.held.asked_records()
        state.held.not_answered([held.id for held in asked])
        for held in asked:
            state.lanes.breakers.probe_ended(held.topic, held.id, now)
        if self._failures == 1:
            during = "sweep" if isinstance(request, SweepRequest) else "load" if request == LOAD else "fetch"
            state.ports.observer.event("database_failed", during=during, cause=failed.message)
        if request == LOAD:
            self.loading.failed(now + pause)
            return
        state.ledger.fetch_ended()
        if isinstance(request, FetchRequest):
            state.wishes.took(request, float("inf"))
        state.connection_lost()
        state.wishes.start_again()
