"""Aftermath: what becomes of a record once its report is in.

Delivered records free their keys at once; their rows are marked by the next settlement. Failed ones are judged by
the pure policy, and the outcome is applied here: to the key gate, to the breakers, to the settlement that writes
it. A key whose record is to die stays busy until the death is written: else a crash in between would send the dead
record after its successor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from outboxd.policy.cause import cause
from outboxd.policy.faults import Fault, FaultClass
from outboxd.policy.key_gate import KeyGate
from outboxd.policy.outcomes import Alone, DeadLetter, Delivered, Hold, Outcome, Retry, Unknown
from outboxd.policy.records import NO_HISTORY, FailureHistory, Record
from outboxd.policy.topic_holds import HoldReason, TopicHolds
from outboxd.policy.verdicts import Circumstances, judge
from outboxd.relay.held_records import HeldRecord, HeldRecords, HeldState
from outboxd.relay.lanes import Lanes
from outboxd.relay.ledger import Ledger
from outboxd.relay.ports import Dice, Observer, Report
from outboxd.relay.row_events import tell_rows
from outboxd.relay.settling import Settling
from outboxd.relay.suspicion import Finding, Suspicions

STRAGGLERS_SECONDS = 1.0
"""Records sent before a fault may be acknowledged this long after it; they prove nothing about the time since."""
NEIGHBOURS_SECONDS = 5.0
"""A neighbour delivered longer ago than this says nothing about the topic now."""
UNDECIDED_SECONDS = 1.0
"""How long a permanent failure that would make a storm waits for a neighbour's delivery."""


class Aftermath:
    """Takes reports and applies their outcomes. Lives on the relay's thread."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        topics: TopicHolds,
        held: HeldRecords,
        ledger: Ledger,
        lanes: Lanes,
        settling: Settling,
        observer: Observer,
        dice: Dice,
    ) -> None:
        """All of these are the relay's; the aftermath changes them."""
        self._gate = gate
        self._topics = topics
        self._held = held
        self._ledger = ledger
        self._lanes = lanes
        self._settling = settling
        self._observer = observer
        self._dice = dice
        self.histories: dict[int, FailureHistory] = {}
        self._failed_at: dict[int, float] = {}
        self._suspicions = Suspicions()
        self._aging_since: dict[int, float] = {}
        self.suspects: list[Record] = []
        self.unknown: list[Record] = []
        self.undecided: list[tuple[float, Report]] = []
        self.now_ms = 0

    # Reports.

    def take(self, reports: Sequence[Report], now: float) -> list[Record]:
        """Apply reports; return the records that their keys let go next."""
        if self._observer.wants_rows:
            tell_rows(self._observer, reports)
        if self._lanes.unconfirmed_topics:
            reports = self._count_losses(reports, now)
        failed = [report for report in reports if report[1] is not None]
        sent_back: list[Record] = []
        if failed:
            reports = [report for report in reports if report[1] is None]
            sent_back = [report.record for report in failed if _is_sent_back(report)]
            failed = [report for report in failed if not _is_sent_back(report)]
        following = self._delivered(reports, now) if reports else []
        for report in failed:
            self._lanes[report.record.topic].in_flight -= 1
            self._failed(report, now)
        if self.undecided:
            self._decide(now)
        if sent_back:
            # After the failure that they stand behind was applied: where it holds their key, they are read again later.
            self._lanes.came_back(sent_back)
            following += self.readmit(sent_back, now)
        self._ledger.leave([record.id for record in self._gate.take_dropped()])
        return following

    def readmit(self, records: Sequence[Record], now: float) -> list[Record]:
        """Return those of admitted records that may still go, where a pipelined gate lets many of a key go at once.

        What stands behind a held record by now is read again later; a retry or a replay is held itself.
        """
        going: list[Record] = []
        for record in records:
            if not self._gate.is_behind(record):
                going.append(record)
            elif record.id in self.histories:
                self._leave_held(record, HeldState.WANTED, "behind a held record", now)
            else:
                self._gate.admit([record])
        self._ledger.leave([record.id for record in self._gate.take_dropped()])
        return going

    def _count_losses(self, reports: Sequence[Report], now: float) -> Sequence[Report]:
        """Take fire-and-forget records' reports aside: they are settled already, and only tell how the topic is."""
        kept: list[Report] = []
        delivered: list[Record] = []
        for report in reports:
            record, topic = report.record, report.record.topic
            if topic not in self._lanes.unconfirmed_topics:
                kept.append(report)
                continue
            lane = self._lanes[topic]
            lane.in_flight -= 1
            if report.error is None:
                lane.last_delivered_at = now
                delivered.append(record)
            else:
                self._lose(record, report.error.fault, now)
        if delivered and self._lanes.breakers.open:
            self._close_breakers(delivered, now)
        return kept

    def _lose(self, record: Record, fault: Fault, now: float) -> None:
        self._observer.failed(record.topic, fault.name, fault.fault_class.value)
        self._observer.event("record_lost", topic=record.topic, error_code=fault.name, confirm="none")
        breakers = self._lanes.breakers
        if fault.fault_class in (FaultClass.TOPIC, FaultClass.CLUSTER):
            self.open_breaker(record.topic, fault, fault.meaning, now)
            breakers.probe_failed(record.topic, record.id, fault, fault.meaning, now)
        breakers.probe_ended(record.topic, record.id, now)

    def unconfirmed(self, records: Sequence[Record], now: float) -> list[Record]:
        """The producer took fire-and-forget records, and that settles them; return what their keys let go next."""
        reports = [Report(record, None, None, None) for record in records]
        if self.histories:
            reports = self._delivered_at_last(reports)
        self._note_settled(reports, now)
        return self._gate.release_all(records)

    def _delivered(self, reports: Sequence[Report], now: float) -> list[Record]:
        records = [report[0] for report in reports]
        if self._failed_at or self._suspicions:
            self._clear(reports, now)
        if self.histories:
            reports = self._delivered_at_last(reports)
        self._note_settled(reports, now)
        for topic, rows in Counter([record[3] for record in records]).items():
            lane = self._lanes[topic]
            lane.deliveries += rows
            lane.in_flight -= rows
            lane.last_delivered_at = now
            self._lanes.storms.delivered(topic)
            self._observer.delivered(topic, rows, sum([record[9] for record in records if record[3] == topic]))
        self._observer.acknowledged_after(max(0, self.now_ms - records[0].created_at_ms) / 1000, len(records))
        if self._lanes.breakers.open:
            self._close_breakers(records, now)
        return self._gate.release_all(records)

    def _clear(self, reports: Sequence[Report], now: float) -> None:
        """Forget what the delivered records had failed with."""
        for report in reports:
            self._failed_at.pop(report.record.id, None)
            self._suspicions.passed(report, now)

    def _note_settled(self, reports: Sequence[Report], now: float) -> None:
        settling = self._settling
        settling.ids += [report[0][1] for report in reports]
        settling.partitions += [report[2] for report in reports]
        settling.offsets += [report[3] for report in reports]
        if settling.first_at is None:
            settling.first_at = now

    def _delivered_at_last(self, reports: Sequence[Report]) -> list[Report]:
        """Note records that had failed before; return the reports whose rows are still in the outbox."""
        kept: list[Report] = []
        for report in reports:
            record_id = report.record.id
            history = self.histories.pop(record_id, None)
            self._aging_since.pop(record_id, None)
            if history is None or history.dead_letter_id is None:
                kept.append(report)
            else:
                self._settling.replayed(history.dead_letter_id, report.partition, report.offset)
                self._ledger.leave([record_id])
            if history is not None and history.attempts and history.dead_letter_id is None:
                self._settling.out_of_retry(record_id)
        return kept

    def _close_breakers(self, records: Sequence[Record], now: float) -> None:
        """A delivery closes its topic's breaker: the probe's at once, another's when it cannot be a straggler."""
        for record in records:
            breaker = self._lanes.breakers.open.get(record.topic)
            if breaker is None or breaker.is_watched:
                continue
            if breaker.probing_id == record.id:
                # Sent after the fault, so it is no straggler: it speaks for the topic.
                self._lanes[record.topic].probe_passed_at = now
            if breaker.probing_id == record.id or now - breaker.opened_at > STRAGGLERS_SECONDS:
                self.close_breaker(record.topic, now)

    def close_breaker(self, topic: str, now: float) -> None:
        """The topic is well again: what was parked goes first, then what was deferred."""
        breaker = self._lanes.breakers.close(topic)
        if breaker is None:
            return
        self._topics.release(topic, HoldReason.BREAKER, now)
        self._held.want_parked(topic)
        self._observer.event(
            "breaker_closed", topic=topic, error_code=breaker.fault.name, open_seconds=round(now - breaker.opened_at, 3)
        )

    # Failures.

    def _failed(self, report: Report, now: float) -> None:
        error = report.error
        if error is None:
            return
        fault = error.fault
        self._observer.failed(report.record.topic, fault.name, fault.fault_class.value)
        if fault.unless_neighbour_passes and report.alone:
            self._question(report, fault, now, now)
        else:
            self._judge(report, fault, now)

    def _question(self, report: Report, fault: Fault, refused_at: float, now: float) -> None:
        """Alone, and refused all the same, with a code that may be the topic's: its batch-mates tell."""
        others = self._lanes[report.record.topic].in_flight > 0
        match self._suspicions.find(report, fault.code, refused_at, now, others_in_flight=others):
            case Finding.GUILTY:
                self._judge(report, fault, now, guilty=True)
            case Finding.AGAIN:
                self.suspects.append(report.record)
            case Finding.WAIT:
                self.undecided.append((refused_at, report))
            case Finding.OPEN:
                self._judge(report, fault, now)

    def _neighbours_delivered(self, record: Record, fault: Fault, now: float) -> bool:
        """Say whether other records of the topic got through since this one failed before, or just now."""
        lane = self._lanes[record.topic]
        failed_before_at = self._failed_at.get(record.id)
        if failed_before_at is None:
            # Nobody can tell yet whose fault it is, unless the fault is a row's by nature and the topic is well.
            return fault.fault_class is FaultClass.ROW_PASSING and now - lane.last_delivered_at < STRAGGLERS_SECONDS
        return (
            max(lane.last_delivered_at - STRAGGLERS_SECONDS, lane.probe_passed_at) > failed_before_at
            and now - lane.last_delivered_at < NEIGHBOURS_SECONDS
        )

    def _judge(self, report: Report, fault: Fault, now: float, *, guilty: bool = False) -> None:
        record = report.record
        text = "" if report.error is None else report.error.text
        message = cause(fault, text, record.topic, report.partition)
        history = self.histories.get(record.id, NO_HISTORY)
        around = Circumstances(
            alone=report.alone,
            neighbours_delivered=guilty or self._neighbours_delivered(record, fault, now),
            storming=False,
            own_age_seconds=self._own_age_seconds(record, now),
            random_unit=self._dice.random(),
        )
        outcome = judge(fault, message, history, self._lanes[record.topic].route, around)
        is_permanent = isinstance(outcome, DeadLetter) and fault.fault_class is not FaultClass.ROW_PASSING
        if is_permanent and self._lanes.storms.failed_for_good(record.topic, fault.code, record.key, record.id):
            self.undecided.append((now, report))
            return
        self._apply(record, outcome, now)

    def _own_age_seconds(self, record: Record, now: float) -> float:
        """Time since the first counted failure, without time on hold or paused.

        It begins again with each ownership: how long the topic was held before is not known then, and an outage must
        not let rows expire.
        """
        own_time = self._topics.own_time(record.topic, now)
        return own_time - self._aging_since.get(record.id, own_time)

    def ages(self, record_id: int, topic: str, now: float) -> None:
        """A failure of the record is counted: its age runs from the first one."""
        self._aging_since.setdefault(record_id, self._topics.own_time(topic, now))

    def _decide(self, now: float) -> None:
        """Send again what would have made a storm where a neighbour is delivered by now; else it is one."""
        undecided, self.undecided = self.undecided, []
        for since, report in undecided:
            record = report.record
            lane = self._lanes[record.topic]
            fault = None if report.error is None else report.error.fault
            if fault is not None and fault.unless_neighbour_passes and not self._suspicions.is_sent_again(record.id):
                self._question(report, fault, since, now)
                continue
            is_stormy = HoldReason.STORM in self._topics.held.get(record.topic, ())
            if lane.last_delivered_at > since and not is_stormy:
                # The failure was before that delivery, so it proves nothing any more: once more, alone.
                self.suspects.append(record)
            elif lane.in_flight > 0 and now - since < UNDECIDED_SECONDS:
                self.undecided.append((since, report))
            else:
                self._storm(report, now)

    def _storm(self, report: Report, now: float) -> None:
        error = report.error
        if error is None:
            return
        record, fault = report.record, error.fault
        message = cause(fault, error.text, record.topic, report.partition)
        if HoldReason.STORM not in self._topics.held.get(record.topic, ()):
            note = f"storm guard: many keys in a row failed for good with {fault.name}, none was delivered between"
            self._settling.storm(self._lanes.storm(record.topic), note)
            self._gate.defer_waiting([record.topic])
            self._observer.event("storm_guard", topic=record.topic, error_code=fault.name, cause=message)
        self._lanes.breakers.probe_ended(record.topic, record.id, now)
        self._leave_held(record, HeldState.WANTED, "storm", now)

    def _apply(self, record: Record, outcome: Outcome, now: float) -> None:
        match outcome:
            case Retry():
                self._failed_at[record.id] = now
                self.ages(record.id, record.topic, now)
                self._lanes.breakers.probe_ended(record.topic, record.id, now)
                self._observer.retried(record.topic)
                self._retry(record, outcome, now)
            case DeadLetter():
                self._lanes.breakers.probe_ended(record.topic, record.id, now)
                self._die(record, outcome)
            case Hold():
                self._park(record, outcome.fault, outcome.message, now)
            case Alone():
                self._suspicions.suspect(record.id, outcome.fault.code, now)
                self.suspects.append(record)
            case Unknown():
                self.unknown.append(record)
            case Delivered():
                raise AssertionError("a failed report is not a delivery")

    def _retry(self, record: Record, outcome: Retry, now: float) -> None:
        history = self.histories.get(record.id, NO_HISTORY)
        if history.dead_letter_id is None:
            self._settling.retry(record.id, outcome)
            self._hold_key(record)
            return
        # A replay's row is not in the outbox, so that `retry` has no place for it: it stays `replaying` and waits here.
        self.histories[record.id] = history._replace(attempts=outcome.attempts)
        self._leave_held(record, HeldState.SCHEDULED, outcome.fault.name, now, now + outcome.delay_seconds)

    def _hold_key(self, record: Record) -> None:
        gate_key = self._gate.key_of(record)
        if gate_key is not None:
            self._gate.hold(gate_key, record.id)

    def _die(self, record: Record, outcome: DeadLetter) -> None:
        history = self.histories.get(record.id, NO_HISTORY)
        if history.dead_letter_id is not None:
            self._settling.died_again(record.id, history.dead_letter_id, outcome)
        else:
            self._settling.dead(record.id, outcome)
        if outcome.holds_key or self._gate.pipelined:
            # A pipelined gate knows no busy record, so the key is held until the death is written.
            self._hold_key(record)
        self._observer.died(record.topic, outcome.reason.value)

    def _park(self, record: Record, fault: Fault, message: str, now: float) -> None:
        """A systemic fault: the topic's breaker opens or stays open, and the record waits behind it in the database."""
        self.open_breaker(record.topic, fault, message, now)
        self._lanes.breakers.probe_failed(record.topic, record.id, fault, message, now)
        self._failed_at[record.id] = now
        self._leave_held(record, HeldState.PARKED, fault.name, now)

    def open_breaker(self, topic: str, fault: Fault, message: str, now: float) -> None:
        """The topic waits, until a probe or what is in flight gets through."""
        if self._lanes.breakers.trip(topic, fault, message, now):
            self._held.park_topic(topic)
            self._topics.hold(topic, HoldReason.BREAKER, now)
            self._gate.defer_waiting([topic])
            self._ledger.leave([waiting.id for waiting in self._gate.take_dropped()])
            self._observer.event("breaker_opened", topic=topic, error_code=fault.name, cause=message)

    def _leave_held(self, record: Record, state: HeldState, why: str, now: float, due_at: float = 0.0) -> None:
        """The record leaves memory and is kept as held."""
        history = self.histories.pop(record.id, NO_HISTORY)
        gate_key = self._gate.key_of(record)
        self._suspicions.forget(record.id)
        self._ledger.leave([record.id])
        self._ledger.leave([waiting.id for waiting in self._gate.take_dropped()])
        self._held.add(HeldRecord(record.id, record.topic, gate_key, history, state, why, now, due_at))
        self._ledger.leave([waiting.id for waiting in self._gate.take_dropped()])

    def admitted(self, record: Record, held: HeldRecord) -> None:
        """A held record was read again and goes: remember what it went through."""
        if held.history != NO_HISTORY:
            self.histories[record.id] = held.history

    def forget(self, record_id: int) -> None:
        """The record is gone from the database."""
        self.histories.pop(record_id, None)
        self._failed_at.pop(record_id, None)
        self._suspicions.forget(record_id)
        self._aging_since.pop(record_id, None)


def _is_sent_back(report: Report) -> bool:
    """Whether a transaction left the record out, since an earlier one of its key failed in it."""
    return report.error is not None and report.error.fault.name == "SENT_BACK"
