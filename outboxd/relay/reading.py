"""Reading: what is asked of the database, when, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.pacing import Pacing
from outboxd.policy.records import FailureHistory
from outboxd.relay.held_records import HeldRecord, HeldState
from outboxd.relay.ports import DueReplay, Fetched, FetchFailed, FetchRequest, Loaded, Pause, Swept
from outboxd.relay.recovering import Recovering
from outboxd.relay.state import State
from outboxd.relay.sweeping import Sweeping

WANTED_PAUSE_SECONDS = 0.02
REPORTS_WAIT_SECONDS_MAX = 0.002
"""So much later may a fetch be for the reports of the one before, so that one turn takes both."""
AHEAD_SECONDS_MAX = 0.005
"""So long before it is due a fetch is given to the database's thread, which waits instead of the loop."""
FAILURE_PAUSE_SECONDS_MIN = 0.1
FAILURE_PAUSE_SECONDS_MAX = 2.0
LOAD = "load"


class Reading:
    """The database's reading side of the flow."""

    def __init__(self, state: State, *, listening: bool = False) -> None:
        """`state` is the relay's memory of this ownership; while `listening`, notifications come."""
        self._state = state
        limits = state.limits
        self._pacing = Pacing(limits.poll_interval_min_seconds, limits.poll_interval_max_seconds)
        self.pace(listening=listening)
        self.sweeping = Sweeping(state)
        self.recovering = Recovering(state)
        self.loaded = False
        self.has_fetched = False
        self.read_all = False
        self.was_full = False
        """Whether the last fetch brought as many rows as it might: there is a backlog."""
        self._failures = 0
        self._pause = 0.0
        self._awaits_reports = False
        self._next_fetch_at = 0.0
        self._next_wanted_at = 0.0
        self._fetch_began_at = 0.0

    # Loading.

    def load(self) -> None:
        """Ask for what a new owner must know before its first fetch."""
        self._state.reading = LOAD
        self._state.ports.store.begin_load()

    def on_loaded(self, loaded: Loaded) -> None:
        """Hold the keys and topics that were held when the owner before this one ended."""
        state = self._state
        state.reading = None
        self._failures = 0
        self.loaded = True
        state.aftermath.now_ms = loaded.now_ms
        self._on_pauses(loaded.pauses, 0.0)
        now = state.ports.clock.monotonic()
        for holder in loaded.holders:
            state.lanes.meet([holder.topic])
            held_state = HeldState.SCHEDULED
            if holder.dead_letter_id is not None:
                held_state = HeldState.WANTED if holder.replaying else HeldState.DEAD
            history = FailureHistory(holder.attempts, holder.first_failed_at_ms, holder.dead_letter_id)
            gate_key = state.gate.key_for(holder.topic, holder.key)
            why = "retry" if holder.dead_letter_id is None else "dead letter"
            # No pause is longer than this, whatever the database's clock was when it was written.
            longest = state.lanes[holder.topic].route.retry.backoff_max_seconds
            due_at = now + min(holder.due_in_seconds, longest)
            if holder.dead_letter_id is None:
                state.aftermath.histories.ages(holder.outbox_id, holder.topic, now, holder.own_age_seconds)
            state.held.add(
                HeldRecord(holder.outbox_id, holder.topic, gate_key, history, held_state, why, now, due_at, holder.key)
            )
        state.ports.observer.event("owner", token=state.token, held_records=len(state.held))
        if state.pipelined:
            self.recovering.begin(loaded)

    # Fetching.

    def woken(self) -> None:
        """Something may be pending: read soon."""
        self._pacing.woken()
        self._next_fetch_at = 0.0

    def pace(self, *, listening: bool) -> None:
        """Take the present intervals; while notifications come, an idle outbox is read once in a while only."""
        limits = self._state.limits
        longest = limits.poll_interval_max_seconds
        if listening:
            longest = max(longest, limits.idle_poll_interval_seconds)
        self._pacing.within(limits.poll_interval_min_seconds, longest)
        self._next_fetch_at = 0.0

    def deadlines(self) -> list[float]:
        """Return when something is to be read next."""
        state = self._state
        if state.reading is not None or not self.loaded or state.draining or state.is_crowded:
            # A fetch that cannot begin would be due for ever, and the loop would never rest.
            return []
        if not self.recovering.is_done:
            return self.recovering.deadlines()
        deadlines = [self._next_fetch_at, self.sweeping.next_at]
        if state.admission.wants_more:
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
        if state.reading is not None or not self.loaded or state.draining:
            return
        if not self.recovering.is_done:
            self.recovering.begin_again(now)
            return
        limits = state.limits
        rows_max = min(limits.batch_rows, state.ledger.rows_free)
        bytes_max = min(limits.batch_bytes, state.ledger.bytes_free)
        # So little room is not worth a fetch: what is in memory has to leave it first.
        state.is_crowded = len(state.ledger) > 0 and (
            rows_max * 2 < min(limits.batch_rows, limits.max_in_flight_rows)
            or bytes_max * 4 < min(limits.batch_bytes, limits.max_in_flight_bytes)
        )
        if state.is_crowded:
            return
        if self.sweeping.sweep(now, gives_way=now >= self._next_fetch_at):
            self.read_all = False
            return
        state.held.want_due(now)
        probing = state.admission.probing
        has_probes = probing.look(now)
        for topic in probing.idle_topics:
            # Whatever the breaker opened for is gone; new records are the probe.
            state.aftermath.holding.close_breaker(topic, now)
        delay_seconds = 0.0 if has_probes else max(0.0, self._next_fetch_at - now)
        if delay_seconds > 0:
            if state.admission.wants_more and now >= self._next_wanted_at:
                self._next_wanted_at = now + WANTED_PAUSE_SECONDS
                delay_seconds = 0.0
            elif self._awaits_reports or delay_seconds > AHEAD_SECONDS_MAX:
                return
        want_discards = any(held.state is HeldState.DEAD for held in state.held.by_id.values())
        request = state.admission.request(max(rows_max, 1), max(bytes_max, 1), want_discards=want_discards)
        state.reading = request
        self._awaits_reports = False
        self._fetch_began_at = now + delay_seconds
        state.ledger.fetch_begins()
        state.ports.store.begin_fetch(request, delay_seconds)

    def on_fetched(self, fetched: Fetched) -> None:
        """Admit what may go, note what the answer tells of retries, replays, discards and pauses."""
        state = self._state
        request, state.reading = state.reading, None
        self._failures = 0
        self.has_fetched = True
        self.read_all = not fetched.records
        if not isinstance(request, FetchRequest):
            return
        self.was_full = len(fetched.records) >= request.rows_max
        now = state.ports.clock.monotonic()
        state.aftermath.now_ms = fetched.now_ms
        # While it drains too: suspects are still sent alone then.
        self._on_pauses(fetched.pauses, self._fetch_began_at)
        if state.draining:
            state.ledger.fetch_ended()
            return
        admitted = state.admission.take(request, fetched, now)
        for record, held in admitted.resumed:
            state.aftermath.admitted(record, held)
        self._on_due(fetched)
        state.ledger.fetch_ended()
        for gone in admitted.vanished:
            self._on_vanished(gone)
        state.ready += admitted.ready
        pause = 0.0 if self.was_full else self._pacing.after_read(len(fetched.records))
        if len(state.held):
            # No notification tells that a retry is due, or that an operator replays or discards.
            pause = min(pause, state.limits.poll_interval_max_seconds)
        self._pause = pause
        self._awaits_reports = pause > 0 and not state.pipelined and bool(admitted.ready)
        self._next_fetch_at = now + pause + (REPORTS_WAIT_SECONDS_MAX if self._awaits_reports else 0.0)
        if fetched.records:
            state.ports.observer.phase("fetch", now - self._fetch_began_at, len(fetched.records))

    def reported(self, now: float) -> None:
        """While few rows come, the pause before the next fetch begins when those of the last one are acknowledged:
        that costs fewer fetches, each with a row or two more.
        """
        if self._awaits_reports and not self._state.in_flight:
            self._awaits_reports = False
            self._next_fetch_at = min(self._next_fetch_at, now + self._pause)
            self.fetch(now)

    def _on_due(self, fetched: Fetched) -> None:
        held_records = self._state.held
        for due in fetched.due:
            held = held_records.by_id.get(due.outbox_id)
            if held is not None and held.state is HeldState.SCHEDULED:
                held_records.want(due.outbox_id)
        for replay in fetched.replays:
            self._on_replay(replay)
        for outbox_id in fetched.discarded:
            held = held_records.by_id.get(outbox_id)
            if held is not None and held.state is HeldState.DEAD:
                self._release_held(held)

    def _on_replay(self, replay: DueReplay) -> None:
        state = self._state
        if state.ledger.knows(replay.outbox_id):
            return
        former = state.held.by_id.get(replay.outbox_id)
        if former is not None:
            if former.state is not HeldState.DEAD:
                return
            # An operator may have changed topic or key: the old key is let go, the new one held.
            self._release_held(former)
        state.lanes.meet([replay.topic])
        history = FailureHistory(replay.attempts, None, replay.dead_letter_id)
        gate_key = state.gate.key_for(replay.topic, replay.key)
        now = state.ports.clock.monotonic()
        state.held.add(
            HeldRecord(
                replay.outbox_id, replay.topic, gate_key, history, HeldState.WANTED, "replay", now, key=replay.key
            )
        )
        state.forget_dropped()

    def _on_vanished(self, held: HeldRecord) -> None:
        """Somebody else deleted, published or resolved a record that was held."""
        state = self._state
        self._release_held(held)
        if not held.is_replay:
            state.settling.out_of_retry(held.id)
        state.lanes.breakers.probe_ended(held.topic, held.id, state.ports.clock.monotonic())

    def _release_held(self, held: HeldRecord) -> None:
        state = self._state
        state.held.remove(held.id)
        state.aftermath.histories.forget(held.id)
        if held.gate_key is not None:
            following = state.gate.release(held.gate_key, held.id)
            if following is not None:
                state.ready.append(following)

    def _on_pauses(self, pauses: Sequence[Pause], asked_at: float) -> None:
        state = self._state
        stopped, resumed = state.lanes.pause(pauses, asked_at)
        if stopped:
            state.gate.defer_waiting(stopped)
            state.forget_dropped()
        for topic in stopped:
            state.ports.observer.event("topic_paused", topic=topic)
        for topic in resumed:
            state.ports.observer.event("topic_resumed", topic=topic)
        for topic, fault in state.lanes.take_let_go().items():
            state.aftermath.holding.try_again(topic, fault, state.ports.clock.monotonic())

    # Answers of the sweep, and failures.

    def on_swept(self, swept: Swept) -> None:
        """Take a chunk of the sweep."""
        self._state.reading = None
        self._failures = 0
        self.sweeping.on_swept(swept)

    def on_failed(self, failed: FetchFailed) -> None:
        """Ask again, after a pause that grows; where the connection was lost, from the beginning."""
        state = self._state
        request, state.reading = state.reading, None
        self._failures += 1
        now = state.ports.clock.monotonic()
        pause = min(FAILURE_PAUSE_SECONDS_MIN * 2 ** min(self._failures - 1, 10), FAILURE_PAUSE_SECONDS_MAX)
        self._next_fetch_at = self._next_wanted_at = self.sweeping.next_at = now + pause
        asked = state.held.asked_records()
        state.held.not_answered([held.id for held in asked])
        for held in asked:
            state.lanes.breakers.probe_ended(held.topic, held.id, now)
        if self._failures == 1:
            state.ports.observer.event("database_failed", during="fetch", cause=failed.message)
        if request == LOAD:
            if state.token is not None and not state.draining:
                self.load()
            return
        state.ledger.fetch_ended()
        if failed.lost:
            state.admission.start_again()
