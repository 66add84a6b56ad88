"""The relay: the one loop that moves committed rows to the broker and their outcomes back.

Each turn takes the mail, publishes what was admitted, takes the reports, settles, asks for more, and rests until something
happens. All state is the loop's own; other threads only leave events in the mailbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from outboxd.policy.faults import own_fault
from outboxd.policy.key_gate import KeyGate
from outboxd.policy.outcomes import DeadLetter, Retry
from outboxd.policy.pacing import Pacing
from outboxd.policy.records import NO_HISTORY, FailureHistory, Record
from outboxd.policy.routes import Route
from outboxd.policy.topic_holds import HoldReason, TopicHolds
from outboxd.relay.admission import Admission
from outboxd.relay.aftermath import Aftermath
from outboxd.relay.held_records import HeldRecord, HeldRecords, HeldState
from outboxd.relay.lanes import Lanes
from outboxd.relay.ledger import Ledger
from outboxd.relay.ports import (
    Clock,
    Dice,
    DueReplay,
    Fetched,
    FetchFailed,
    FetchRequest,
    Lease,
    LeaseGranted,
    LeaseLost,
    Loaded,
    Mailbox,
    Observer,
    OutboxStore,
    Pause,
    Publisher,
    Settled,
    SettleFailed,
    Settlement,
    StopRequested,
    SweepRequest,
    Swept,
    Woken,
)
from outboxd.relay.settling import Settling

POLL_SLICE_SECONDS = 0.001
REST_SECONDS_MAX = 0.25
PUBLISH_ROWS_MAX = 2_000
SWEEP_ROWS_MAX = 20_000
SKIPPED_KEYS_MAX = 1_000
SETTLE_DELAY_SECONDS = 0.02
WANTED_PAUSE_SECONDS = 0.02
FAILURE_PAUSE_SECONDS_MIN = 0.1
FAILURE_PAUSE_SECONDS_MAX = 2.0
WATCH_SECONDS = 1.0
STALL_SECONDS = 10.0
UNCONFIRMED_SHARE = 10
"""Fire-and-forget records take at most one part in so many of what may be in flight."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The bounds and intervals of one relay; durations in seconds."""

    batch_rows: int = 5_000
    batch_bytes: int = 16 * 1024 * 1024
    max_in_flight_rows: int = 50_000
    max_in_flight_bytes: int = 48 * 1024 * 1024
    poll_interval_min_seconds: float = 0.001
    poll_interval_max_seconds: float = 0.1
    sweep_interval_seconds: float = 5.0
    shutdown_timeout_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the relay works with."""

    store: OutboxStore
    publisher: Publisher
    lease: Lease
    mailbox: Mailbox
    clock: Clock
    dice: Dice
    observer: Observer


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How the relay ended. `unsettled_rows` were left pending."""

    reason: str
    unsettled_rows: int = 0
    blocked_topics: Sequence[str] = field(default_factory=tuple)


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
        """`until_empty` ends the relay when nothing is left to do; `pipelined` is for a producer that keeps order by itself."""
        self._ports = ports
        self._limits = limits
        self._routes = routes
        self._default_route = default_route or Route()
        self._until_empty = until_empty
        self._pipelined = pipelined
        self._owner_token: int | None = None
        self._draining_until: float | None = None
        self.end: RelayEnd | None = None
        self.turns = 0
        self._pacing = Pacing(limits.poll_interval_min_seconds, limits.poll_interval_max_seconds)
        self._forget_everything()

    def _forget_everything(self) -> None:
        """Start as a new owner does: nothing in memory is true any more."""
        limits = self._limits
        self.gate = KeyGate(pipelined=self._pipelined)
        self.topics = TopicHolds()
        self.ledger = Ledger(limits.max_in_flight_rows, limits.max_in_flight_bytes)
        self.held = HeldRecords(self.gate)
        self.lanes = Lanes(self._routes, self._default_route, self.topics, self.gate)
        self.settling = Settling(max(limits.batch_rows, 1_000))
        self.admission = Admission(self.gate, self.topics, self.held, self.ledger, self.lanes)
        self.aftermath = Aftermath(
            self.gate,
            self.topics,
            self.held,
            self.ledger,
            self.lanes,
            self.settling,
            self._ports.observer,
            self._ports.dice,
        )
        self._ready: list[Record] = []
        self._ready_at = 0
        self._unconfirmed: list[Record] = []
        self._loaded = False
        self._reading: FetchRequest | SweepRequest | str | None = None
        self._next_fetch_at = 0.0
        self._next_wanted_at = 0.0
        self._next_settle_at = 0.0
        self._next_sweep_at = self._ports.clock.monotonic() + limits.sweep_interval_seconds
        self._sweep_cursor: int | None = None
        self._sweep_began_at = 0.0
        self._sweep_was_idle = False
        self._failures = 0
        self._next_watch_at = 0.0
        self._oldest_id: int | None = None
        self._oldest_since = 0.0
        self._swept_empty = False
        self._fetch_began_at = 0.0
        self._settle_began_at = 0.0

    # The loop.

    def run(self) -> RelayEnd:
        """Relay until told to stop, or until nothing is left where that was asked for."""
        while self.end is None:
            self.turn()
        return self.end

    def turn(self) -> None:
        """One turn of the loop: the data's way, from the mailbox to the next rest."""
        self.turns += 1
        self._take_mail()
        now = self._ports.clock.monotonic()
        if self._owner_token is not None:
            if now >= self._ports.lease.trusted_until():
                self._stand_down("the lease could not be renewed in time")
            else:
                self._publish()
                self._report(now)
                self._settle(now)
                self._fetch(now)
                self._watch(now)
        self._consider_end(now)
        if self.end is None:
            self._rest(now)

    def _rest(self, now: float) -> None:
        if self._ready_at < len(self._ready) and self._draining_until is None:
            self._ports.publisher.poll(POLL_SLICE_SECONDS)
            return
        deadline = min(self._deadlines(now), default=now + REST_SECONDS_MAX)
        timeout = min(max(0.0, deadline - now), REST_SECONDS_MAX)
        if self._in_flight():
            self._ports.publisher.poll(min(timeout, POLL_SLICE_SECONDS))
        else:
            self._ports.publisher.poll(0.0)
            self._ports.mailbox.wait(timeout)

    def _deadlines(self, now: float) -> list[float]:
        if self._owner_token is None:
            return []
        deadlines = [self._ports.lease.trusted_until(), self._next_watch_at]
        if self._draining_until is not None:
            deadlines.append(self._draining_until)
        elif self._reading is None and self._loaded:
            deadlines += [self._next_fetch_at, self._next_sweep_at]
            if self.admission.wants_more:
                deadlines.append(self._next_wanted_at)
            probe_at = self.lanes.breakers.next_probe_at()
            if probe_at is not None:
                deadlines.append(max(probe_at, self._next_wanted_at))
        if self.settling.under_way is None and not self.settling.is_empty:
            deadlines.append(max(self._next_settle_at, now if self.settling.is_pressing else self._settle_due_at(now)))
        if self.aftermath.undecided:
            deadlines.append(now + POLL_SLICE_SECONDS)
        return deadlines

    def _in_flight(self) -> bool:
        """Say whether the producer owes reports."""
        return any(lane.in_flight for lane in self.lanes.topics())

    # Mail.

    def _take_mail(self) -> None:
        for event in self._ports.mailbox.take():
            match event:
                case Fetched():
                    self._on_fetched(event)
                case Settled():
                    self._on_settled(event)
                case Swept():
                    self._on_swept(event)
                case FetchFailed():
                    self._on_fetch_failed(event)
                case SettleFailed():
                    self._on_settle_failed(event)
                case Loaded():
                    self._on_loaded(event)
                case LeaseGranted():
                    self._own(event.token)
                case LeaseLost():
                    if self._owner_token is not None:
                        self._stand_down(event.reason)
                case StopRequested():
                    self._drain()
                case Woken():
                    self._pacing.woken()
                    self._next_fetch_at = 0.0

    def _own(self, token: int) -> None:
        self._owner_token = token
        self._forget_everything()
        if self._draining_until is None:
            self._load()

    def _load(self) -> None:
        self._reading = "load"
        self._ports.store.begin_load()

    def _stand_down(self, reason: str) -> None:
        """Ownership ended, or cannot be trusted: nothing is produced any more, and what is unsettled is the successor's."""
        unsettled = len(self.ledger)
        self._owner_token = None
        self._ports.publisher.purge()
        self._ports.publisher.rebuild()
        self._ports.lease.give_up()
        self._forget_everything()
        self._ports.observer.event("lease_lost", reason=reason, unsettled_rows=unsettled)
        self._ports.observer.duplicates_possible(unsettled)

    def _drain(self) -> None:
        if self._draining_until is not None:
            self._finish("forced")
            return
        now = self._ports.clock.monotonic()
        self._draining_until = now + self._limits.shutdown_timeout_seconds
        self._ports.observer.event("draining", in_memory=len(self.ledger))
        self._drop_unpublished()

    def _drop_unpublished(self) -> None:
        unpublished = [record.id for record in self._ready[self._ready_at :] + self._unconfirmed]
        self.ledger.leave(unpublished)
        self.ledger.leave(self.gate.waiting_ids())
        self._ready, self._ready_at, self._unconfirmed = [], 0, []

    # Fetch and admit.

    def _on_loaded(self, loaded: Loaded) -> None:
        self._reading = None
        self._failures = 0
        self._loaded = True
        self.aftermath.now_ms = loaded.now_ms
        self._on_pauses(loaded.pauses)
        now = self._ports.clock.monotonic()
        for holder in loaded.holders:
            self.lanes.meet([holder.topic])
            state = HeldState.SCHEDULED
            if holder.dead_letter_id is not None:
                state = HeldState.WANTED if holder.replaying else HeldState.DEAD
            history = FailureHistory(holder.attempts, holder.first_failed_at_ms, holder.dead_letter_id)
            gate_key = self.gate.key_for(holder.topic, holder.key)
            why = "retry" if holder.dead_letter_id is None else "dead letter"
            self.held.add(
                HeldRecord(
                    holder.outbox_id, holder.topic, gate_key, history, state, why, now, now + holder.due_in_seconds
                )
            )
        self._ports.observer.event("owner", token=self._owner_token, held_records=len(self.held))

    def _fetch(self, now: float) -> None:
        if self._reading is not None or not self._loaded or self._draining_until is not None:
            return
        limits = self._limits
        rows_max = min(limits.batch_rows, self.ledger.rows_free)
        bytes_max = min(limits.batch_bytes, self.ledger.bytes_free)
        is_crowded = rows_max * 2 < min(limits.batch_rows, limits.max_in_flight_rows) or bytes_max * 4 < min(
            limits.batch_bytes, limits.max_in_flight_bytes
        )
        if is_crowded and len(self.ledger):
            return
        if self._ready_at < len(self._ready):
            return
        if self._sweeps(now):
            return
        probes = self._probes(now)
        if now < self._next_fetch_at and not probes:
            if not self.admission.wants_more or now < self._next_wanted_at:
                return
            self._next_wanted_at = now + WANTED_PAUSE_SECONDS
        want_discards = any(held.state is HeldState.DEAD for held in self.held.by_id.values()) if self.held else False
        request = self.admission.request(max(rows_max, 1), max(bytes_max, 1), probes, want_discards=want_discards)
        self._reading = request
        self._fetch_began_at = now
        self.ledger.fetch_begins()
        self._ports.store.begin_fetch(request)

    def _probes(self, now: float) -> list[int]:
        breakers = self.lanes.breakers
        probes: list[int] = []
        for topic in breakers.probes_due(now):
            reasons = self.topics.held.get(topic, set())
            if reasons != {HoldReason.BREAKER}:
                continue
            candidate = self.held.probe_candidate(topic)
            if candidate is not None:
                breakers.probing(topic, candidate.id)
                probes.append(candidate.id)
            elif not self.held.has_parked(topic):
                # Whatever the breaker opened for is gone; new records are the probe.
                self.aftermath.close_breaker(topic, now)
        return probes

    def _on_fetched(self, fetched: Fetched) -> None:
        request = self._reading
        self._reading = None
        self._failures = 0
        if not isinstance(request, FetchRequest):
            return
        now = self._ports.clock.monotonic()
        self.aftermath.now_ms = fetched.now_ms
        if self._draining_until is not None:
            self.ledger.fetch_ended()
            return
        self._on_pauses(fetched.pauses)
        former = dict(self.held.by_id) if len(self.held) and (request.chosen_ids or request.replay_ids) else {}
        admitted = self.admission.take(request, fetched)
        for record in admitted.ready if former else ():
            held = former.get(record.id)
            if held is not None:
                self.aftermath.admitted(record, held)
        self._on_due(fetched)
        self.ledger.fetch_ended()
        for gone in admitted.vanished:
            self._on_vanished(gone)
        self._ready += admitted.ready
        self._next_fetch_at = now + self._pacing.after_read(len(fetched.records))
        if fetched.records:
            self._ports.observer.phase("fetch", now - self._fetch_began_at, len(fetched.records))

    def _on_due(self, fetched: Fetched) -> None:
        for due in fetched.due:
            held = self.held.by_id.get(due.outbox_id)
            if held is not None and held.state is HeldState.SCHEDULED:
                self.held.want(due.outbox_id)
        for replay in fetched.replays:
            self._on_replay(replay)
        for outbox_id in fetched.discarded:
            held = self.held.by_id.get(outbox_id)
            if held is not None and held.state is HeldState.DEAD:
                self._release_held(held)

    def _on_replay(self, replay: DueReplay) -> None:
        if self.ledger.knows(replay.outbox_id):
            return
        former = self.held.by_id.get(replay.outbox_id)
        if former is not None:
            if former.state is not HeldState.DEAD:
                return
            # An operator may have changed topic or key: the old key is let go, the new one held.
            self._release_held(former)
        self.lanes.meet([replay.topic])
        history = FailureHistory(replay.attempts, None, replay.dead_letter_id)
        gate_key = self.gate.key_for(replay.topic, replay.key)
        now = self._ports.clock.monotonic()
        self.held.add(HeldRecord(replay.outbox_id, replay.topic, gate_key, history, HeldState.WANTED, "replay", now))
        self.ledger.leave([record.id for record in self.gate.take_dropped()])

    def _on_vanished(self, held: HeldRecord) -> None:
        """Somebody else deleted, published or resolved a record that was held."""
        self._release_held(held)
        if not held.is_replay:
            self.settling.out_of_retry(held.id)
        if self.lanes.breakers.is_probe(held.topic, held.id):
            self.lanes.breakers.open[held.topic].probing_id = None

    def _release_held(self, held: HeldRecord) -> None:
        self.held.remove(held.id)
        self.aftermath.forget(held.id)
        if held.gate_key is not None:
            following = self.gate.release(held.gate_key, held.id)
            if following is not None:
                self._ready.append(following)

    def _on_pauses(self, pauses: Sequence[Pause]) -> None:
        stopped, resumed = self.lanes.pause(pauses)
        if stopped:
            self.gate.defer_waiting(stopped)
            self.ledger.leave([record.id for record in self.gate.take_dropped()])
        for topic in stopped:
            self._ports.observer.event("topic_paused", topic=topic)
        for topic in resumed:
            self._ports.observer.event("topic_resumed", topic=topic)

    def _on_fetch_failed(self, failed: FetchFailed) -> None:
        request = self._reading
        self._reading = None
        self._failures += 1
        now = self._ports.clock.monotonic()
        pause = min(FAILURE_PAUSE_SECONDS_MIN * 2 ** min(self._failures - 1, 10), FAILURE_PAUSE_SECONDS_MAX)
        self._next_fetch_at = self._next_wanted_at = self._next_sweep_at = now + pause
        self.held.not_answered([held.id for held in self.held.asked_records()])
        if self._failures == 1:
            self._ports.observer.event("database_failed", during="fetch", cause=failed.message)
        if request == "load":
            if self._owner_token is not None and self._draining_until is None:
                self._reading = "load"
                self._ports.store.begin_load()
            return
        self.ledger.fetch_ended()
        if failed.lost:
            self.admission.start_again()

    # Sweep.

    def _sweeps(self, now: float) -> bool:
        if self._sweep_cursor is None:
            if now < self._next_sweep_at:
                return False
            self._sweep_cursor = -(2**63)
            self._sweep_began_at = now
            self._sweep_was_idle = self._is_idle()
            self.admission.cursors.retry = None
            self.admission.cursors.replay = 0
        elif now < self._next_sweep_at:
            return False
        keys = [key for key in self.gate.deferred_keys if key[1] is not None][:SKIPPED_KEYS_MAX]
        request = SweepRequest(
            cursor=self._sweep_cursor,
            position=self.admission.cursors.position,
            rows_max=SWEEP_ROWS_MAX,
            skipped_topics=sorted({*self.topics.held, *self.topics.deferred}),
            skipped_keys=[(topic, key) for topic, key in keys if key is not None],
        )
        self._reading = request
        self.ledger.fetch_begins()
        self._ports.store.begin_sweep(request)
        return True

    def _on_swept(self, swept: Swept) -> None:
        self._reading = None
        self._failures = 0
        now = self._ports.clock.monotonic()
        found = [
            record_id
            for record_id, topic, key in swept.found
            if not self.ledger.knows(record_id)
            and record_id not in self.held
            and not self._is_deferred(topic, key, record_id)
        ]
        self.ledger.fetch_ended()
        if found:
            self.admission.found_by_sweep(found)
            self._ports.observer.event("late_rows_found", rows=len(found))
        self._sweep_cursor = swept.cursor
        if swept.cursor is None:
            lasted = now - self._sweep_began_at
            self._next_sweep_at = self._sweep_began_at + max(self._limits.sweep_interval_seconds, 20 * lasted)
            self._swept_empty = self._sweep_was_idle and not found and self._is_idle()

    def _is_deferred(self, topic: str, key: str | None, record_id: int) -> bool:
        if topic in self.topics.held or topic in self.topics.deferred:
            return True
        gate_key = self.gate.key_for(topic, key)
        return gate_key is not None and self.gate.is_deferred(gate_key, record_id)

    # Publish and report.

    def _publish(self) -> None:
        suspects = self.aftermath.suspects
        while suspects and self._ports.publisher.publish_alone(suspects[0]):
            self.lanes[suspects.pop(0).topic].in_flight += 1
        ready = self._ready
        if self._ready_at >= len(ready) or self._draining_until is not None:
            return
        if self.topics.held or self.lanes.unconfirmed_topics:
            ready = self._ready = self._reconsider(ready[self._ready_at :])
            self._ready_at = 0
        start = self._ready_at
        batch = ready[start : start + PUBLISH_ROWS_MAX] if len(ready) - start > PUBLISH_ROWS_MAX or start else ready
        taken = self._ports.publisher.publish(batch, 0)
        self._ready_at += taken
        published = batch if taken == len(batch) else batch[:taken]
        self.lanes.published(published)
        if self.lanes.unconfirmed_topics:
            self._settle_unconfirmed(published)
        if self._ready_at >= len(ready):
            self._ready, self._ready_at = [], 0

    def _reconsider(self, records: list[Record]) -> list[Record]:
        """A breaker or a pause may have come since these were admitted; and what nobody confirms has its own bound."""
        going: list[Record] = []
        unconfirmed_room = self._limits.max_in_flight_rows // UNCONFIRMED_SHARE - sum(
            self.lanes[topic].in_flight for topic in self.lanes.unconfirmed_topics
        )
        for record in self._unconfirmed + records:
            topic = record.topic
            if topic in self.topics.held and not self.lanes.breakers.is_probe(topic, record.id):
                self._put_back(record)
            elif topic in self.lanes.unconfirmed_topics:
                if unconfirmed_room > 0:
                    unconfirmed_room -= 1
                    going.append(record)
            else:
                going.append(record)
        going_ids = {record.id for record in going} if self.lanes.unconfirmed_topics else set()
        self._unconfirmed = [
            record
            for record in self._unconfirmed + records
            if record.topic in self.lanes.unconfirmed_topics
            and record.id not in going_ids
            and record.topic not in self.topics.held
        ]
        return going

    def _put_back(self, record: Record) -> None:
        """The record was admitted and may not go after all: its key waits for it."""
        now = self._ports.clock.monotonic()
        history = self.aftermath.histories.pop(record.id, NO_HISTORY)
        self.ledger.leave([record.id])
        self.held.add(
            HeldRecord(record.id, record.topic, self.gate.key_of(record), history, HeldState.WANTED, "topic held", now)
        )
        self.ledger.leave([dropped.id for dropped in self.gate.take_dropped()])

    def _settle_unconfirmed(self, published: Sequence[Record]) -> None:
        lossy = [record for record in published if record.topic in self.lanes.unconfirmed_topics]
        if lossy:
            self.settling.ids += [record.id for record in lossy]
            self.settling.partitions += [None] * len(lossy)
            self.settling.offsets += [None] * len(lossy)
            self.settling.first_at = self.settling.first_at or self._ports.clock.monotonic()
            self._ready += self.gate.release_all(lossy)

    def _report(self, now: float) -> None:
        publisher = self._ports.publisher
        publisher.poll(0.0)
        reports = publisher.take_reports()
        if reports or self.aftermath.undecided:
            self._ready += self.aftermath.take(reports, now)
        if publisher.failure() is not None or self.aftermath.unknown:
            self._rebuild()

    def _rebuild(self) -> None:
        """The producer failed: what was in flight has an unknown outcome and goes again, in order, by a new one."""
        failure = self._ports.publisher.failure()
        unsettled = self._unreported()
        self.aftermath.unknown = []
        self._ports.publisher.rebuild()
        self.lanes.nothing_in_flight()
        self._ready = sorted(unsettled + self._ready[self._ready_at :], key=lambda record: record.id)
        self._ready_at = 0
        self._ports.observer.duplicates_possible(len(unsettled))
        self._ports.observer.event(
            "producer_rebuilt",
            error_code=failure.fault.name if failure else "NEVER_REPORTED",
            cause=failure.text if failure else "the producer gave records back without an outcome",
            unknown_rows=len(unsettled),
        )

    def _unreported(self) -> list[Record]:
        """Return the records that the producer took and did not report, and those that it gave back as unknown."""
        elsewhere = self.gate.waiting_ids() | self.settling.known_ids()
        elsewhere.update(record.id for record in self._ready[self._ready_at :])
        elsewhere.update(record.id for record in self._unconfirmed)
        elsewhere.update(report.record.id for _, report in self.aftermath.undecided)
        elsewhere.update(record.id for record in self.aftermath.suspects)
        return [record for record in self.ledger.records.values() if record.id not in elsewhere]

    # Settle.

    def _settle_due_at(self, now: float) -> float:
        if self.settling.rows >= self._limits.batch_rows or self._draining_until is not None or not self._in_flight():
            return now
        return (self.settling.first_at or now) + SETTLE_DELAY_SECONDS

    def _settle(self, now: float) -> None:
        settling = self.settling
        if settling.under_way is not None or settling.is_empty or now < self._next_settle_at:
            return
        if not settling.is_pressing and now < self._settle_due_at(now):
            return
        settlement = settling.take()
        if settlement is not None and self._owner_token is not None:
            self._settle_began_at = now
            self._ports.store.begin_settle(settlement, self._owner_token)

    def _on_settled(self, event: Settled) -> None:
        if event.settlement is not self.settling.under_way:
            return
        self.settling.done()
        if event.fenced:
            self._ports.observer.event("settle_fenced", rows=event.settlement.rows)
            self._stand_down("another daemon owns the outbox")
            return
        now = self._ports.clock.monotonic()
        settlement = event.settlement
        if event.matched_rows < settlement.rows and not settlement.again:
            self._ports.observer.event("settle_mismatch", expected=settlement.rows, matched=event.matched_rows)
        self._ports.observer.phase("settle", now - self._settle_began_at, settlement.rows)
        self.ledger.leave(settlement.delivered_ids)
        for record_id, retry in settlement.retries:
            self._on_retry_written(record_id, retry, now)
        for record_id, death in settlement.dead:
            self._on_death_written(record_id, death, None, now)
        for dead_letter_id, death in settlement.died_again:
            self._on_death_written(self.settling.died_again_written(dead_letter_id), death, dead_letter_id, now)
        if settlement.retries:
            self.admission.cursors.retry = None

    def _on_retry_written(self, record_id: int, retry: Retry, now: float) -> None:
        record = self.ledger.records.get(record_id)
        if record is None:
            return
        former = self.aftermath.histories.pop(record_id, NO_HISTORY)
        history = FailureHistory(retry.attempts, former.first_failed_at_ms or self.aftermath.now_ms)
        self.ledger.leave([record_id])
        self.held.add(
            HeldRecord(
                record_id,
                record.topic,
                self.gate.key_of(record),
                history,
                HeldState.SCHEDULED,
                retry.fault.name,
                now,
                now + retry.delay_seconds,
            )
        )

    def _on_death_written(
        self, record_id: int | None, death: DeadLetter, dead_letter_id: int | None, now: float
    ) -> None:
        record = self.ledger.records.get(record_id) if record_id is not None else None
        if record is None:
            return
        self.aftermath.forget(record.id)
        self.ledger.leave([record.id])
        gate_key = self.gate.key_of(record)
        if gate_key is None:
            return
        if death.holds_key:
            history = FailureHistory(death.attempts, None, dead_letter_id)
            self.held.add(HeldRecord(record.id, record.topic, gate_key, history, HeldState.DEAD, death.fault.name, now))
            return
        following = self.gate.release(gate_key, record.id)
        if following is not None:
            self._ready.append(following)

    def _on_settle_failed(self, event: SettleFailed) -> None:
        if event.settlement is not self.settling.under_way:
            return
        self.settling.failed(replace(event.settlement, again=True))
        self._next_settle_at = self._ports.clock.monotonic() + FAILURE_PAUSE_SECONDS_MIN
        self._ports.observer.event("database_failed", during="settle", cause=event.message)

    # Watching and ending.

    def _watch(self, now: float) -> None:
        """Look once a second for records that have been with the producer for too long."""
        if now < self._next_watch_at:
            return
        self._next_watch_at = now + WATCH_SECONDS
        oldest = self.ledger.oldest()
        if oldest is None or oldest.id != self._oldest_id:
            if self._oldest_id is not None and now - self._oldest_since >= STALL_SECONDS:
                self._on_moving_again(now)
            self._oldest_id = None if oldest is None else oldest.id
            self._oldest_since = now
            return
        if now - self._oldest_since < STALL_SECONDS:
            return
        if now - self._oldest_since < STALL_SECONDS + WATCH_SECONDS:
            self._ports.observer.event("in_flight_stalled", topic=oldest.topic, in_memory=len(self.ledger))
        lane = self.lanes[oldest.topic]
        if lane.in_flight * 4 >= self._limits.max_in_flight_rows:
            fault = own_fault("IN_FLIGHT_TOO_OLD")
            if self.lanes.breakers.trip(oldest.topic, fault, fault.meaning, now):
                self.topics.hold(oldest.topic, HoldReason.BREAKER)
                self.gate.defer_waiting([oldest.topic])
                self.ledger.leave([record.id for record in self.gate.take_dropped()])
                self._ports.observer.event(
                    "breaker_opened", topic=oldest.topic, error_code=fault.name, cause=fault.meaning
                )

    def _on_moving_again(self, now: float) -> None:
        for topic, breaker in list(self.lanes.breakers.open.items()):
            if breaker.is_watched:
                self.aftermath.close_breaker(topic, now)
        self._ports.observer.event("in_flight_moving", in_memory=len(self.ledger))

    def _is_idle(self) -> bool:
        """Nothing is in memory, wanted, or being settled."""
        return (
            not len(self.ledger)
            and self.settling.is_empty
            and not self.admission.wants_more
            and not self.aftermath.undecided
        )

    def _consider_end(self, now: float) -> None:
        if self._draining_until is not None:
            if self._owner_token is None or (
                not self._in_flight() and self.settling.is_empty and self._reading is None
            ):
                self._finish("stopped")
            elif now >= self._draining_until:
                self._finish("shutdown_timeout")
        elif self._until_empty and self._owner_token is not None and self._loaded:
            self._consider_empty(now)

    def _consider_empty(self, now: float) -> None:
        if self.lanes.breakers.open and not self._in_flight_beyond_breakers():
            self._finish("blocked", tuple(sorted(self.lanes.breakers.open)))
            return
        soon = now + self._limits.shutdown_timeout_seconds
        if any(held.state is HeldState.SCHEDULED and held.due_at <= soon for held in self.held.by_id.values()):
            return
        if self._swept_empty and self._is_idle():
            self._finish("empty")

    def _in_flight_beyond_breakers(self) -> bool:
        closed = self.lanes.breakers.open
        return any(record.topic not in closed for record in self.ledger.records.values())

    def _finish(self, reason: str, blocked_topics: Sequence[str] = ()) -> None:
        unsettled = len(self.ledger)
        if self._owner_token is not None:
            self._ports.lease.give_up()
        self.end = RelayEnd(reason, unsettled, blocked_topics)
        self._ports.observer.event("ended", reason=reason, unsettled_rows=unsettled)
