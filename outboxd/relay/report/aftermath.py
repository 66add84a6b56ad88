"""Aftermath: what becomes of a record once its report is in.

Delivered records free their keys at once; their rows are marked by the next settlement. Failed ones are judged by
the pure policy, and the outcome is applied here: to the key gate, to the breakers, to the settlement that writes
it. A key whose record is to die stays busy until the death is written: else a crash in between would send the dead
record after its successor.
"""

from __future__ import annotations

from collections.abc import Sequence

from outboxd.policy.blame.cause import cause
from outboxd.policy.blame.outcomes import Alone, DeadLetter, Delivered, Hold, Outcome, Retry, Unknown
from outboxd.policy.blame.verdicts import Circumstances, judge
from outboxd.policy.exchange.messages import error_of
from outboxd.policy.faults import Fault, FaultClass
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import NO_HISTORY, Record
from outboxd.policy.topics.topic_holds import TopicHolds
from outboxd.relay.memory.held_record import HeldRecord, HeldState
from outboxd.relay.memory.held_records import HeldRecords
from outboxd.relay.memory.lanes import Lanes
from outboxd.relay.memory.ledger import Ledger
from outboxd.relay.memory.settling import Settling
from outboxd.relay.ports import Dice, Observer, Report
from outboxd.relay.report.deliveries import Deliveries
from outboxd.relay.report.histories import Histories
from outboxd.relay.report.holding import Holding
from outboxd.relay.report.row_events import tell_rows
from outboxd.relay.report.storming import Storming
from outboxd.relay.report.stuck_partitions import StuckPartitions
from outboxd.relay.report.suspicion import Finding
from outboxd.relay.report.undecided import Undecided


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
        stuck: StuckPartitions,
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
        self.histories = Histories(topics)
        histories = self.histories
        self.holding = Holding(
            gate=gate,
            topics=topics,
            held=held,
            ledger=ledger,
            lanes=lanes,
            histories=histories,
            stuck=stuck,
            observer=observer,
        )
        self.deliveries = Deliveries(
            gate=gate,
            lanes=lanes,
            settling=settling,
            histories=histories,
            holding=self.holding,
            stuck=stuck,
            observer=observer,
        )
        self.storming = Storming(
            gate=gate,
            topics=topics,
            lanes=lanes,
            settling=settling,
            histories=histories,
            holding=self.holding,
            observer=observer,
        )
        self.suspects: list[Record] = []
        self.unknown: list[Unknown] = []
        self.undecided: list[Undecided] = []
        self.now_ms = 0

    # Reports.

    def take(self, reports: Sequence[Report], now: float) -> list[Record]:
        """Apply reports; return the records that their keys let go next."""
        if self._observer.wants_rows:
            tell_rows(self._observer, reports)
        if self._lanes.unconfirmed_topics:
            reports = self.deliveries.count_losses(reports, now)
        failed: list[Report] = []
        sent_back: list[Record] = []
        if any(map(error_of, reports)):
            failed = [report for report in reports if report[1] is not None]
            reports = [report for report in reports if report[1] is None]
            sent_back = [report.record for report in failed if _is_sent_back(report)]
            failed = [report for report in failed if not _is_sent_back(report)]
        following = self.deliveries.take(reports, now, self.now_ms) if reports else []
        for report in failed:
            self._lanes.count_in_flight(self._lanes[report.record.topic], -1)
            self._failed(report, now)
        if self.undecided:
            self._decide(now)
        if sent_back:
            # After the failure that they stand behind was applied: where it holds their key, they are read again later.
            self._lanes.came_back(sent_back, now)
            following += self.readmit(sent_back, now)
        self._ledger.forget_dropped(self._gate)
        return following

    def readmit(self, records: Sequence[Record], now: float) -> list[Record]:
        """Return those of admitted records that may still go, where a pipelined gate lets many of a key go at once.

        What stands behind a held record by now is read again later; a retry or a replay is held itself. In a topic that
        goes one record at a time, all stand behind the one that failed, the probe of another key too: that goes.
        """
        going: list[Record] = []
        for record in records:
            is_serial_probe = record.topic in self._gate.serial_topics and self._lanes.breakers.is_probe(
                record.topic, record.id
            )
            if is_serial_probe or not self._gate.is_behind(record):
                going.append(record)
                continue
            self._lanes.breakers.probe_ended(record.topic, record.id, now)
            if record.id in self.histories.by_id:
                self.holding.leave(record, HeldState.WANTED, "behind a held record", now)
            else:
                self._gate.put_behind(record)
        self._ledger.forget_dropped(self._gate)
        return going

    # Failures.

    def _failed(self, report: Report, now: float) -> None:
        error = report.error
        if error is None:
            return
        fault = error.fault
        if self._gate.pipelined:
            # Such a gate knows no busy record: the key is held until its outcome is known and written.
            self._hold_key(report.record)
        self._observer.failed(report.record.topic, fault.name, fault.fault_class.value)
        if fault.unless_neighbour_passes and report.alone:
            self._question(report, fault, now, now)
        else:
            self._judge(report, fault, now)

    def _question(self, report: Report, fault: Fault, refused_at: float, now: float) -> None:
        """Alone, and refused all the same, with a code that may be the topic's: its batch-mates tell."""
        others = self._lanes[report.record.topic].in_flight > 0
        match self.histories.suspicions.find(report, fault.code, refused_at, now, others_in_flight=others):
            case Finding.GUILTY:
                self._judge(report, fault, now, guilty=True)
            case Finding.AGAIN:
                self.suspects.append(report.record)
            case Finding.WAIT:
                self.undecided.append(Undecided.of(report, refused_at, self._lanes[report.record.topic]))
            case Finding.OPEN:
                self._judge(report, fault, now)

    def _judge(self, report: Report, fault: Fault, now: float, *, guilty: bool = False) -> None:
        record = report.record
        text = "" if report.error is None else report.error.text
        message = cause(fault, text, record.topic, report.partition)
        history = self.histories.of(record.id)
        lane = self._lanes[record.topic]
        is_storming = self._is_watched(report, fault, now)
        if is_storming and record.topic not in self._topics.held:
            # The topic was let go and a record got through: this failure may be from before.
            self.suspects.append(record)
            return
        around = Circumstances(
            alone=report.alone,
            neighbours_delivered=guilty
            or self.histories.neighbours_delivered(record, fault, self._lanes[record.topic], now),
            storming=is_storming,
            own_age_seconds=self.histories.own_age_seconds(record, now),
            random_unit=self._dice.random(),
        )
        outcome = judge(fault, message, history, lane.route, around)
        is_permanent = isinstance(outcome, DeadLetter) and fault.fault_class is not FaultClass.ROW_PASSING
        if is_permanent and self._lanes.storms.failed_for_good(record.topic, fault.code, record.key, record.id):
            self.undecided.append(Undecided.of(report, now, lane))
            return
        self._apply(record, outcome, now)

    def _is_watched(self, report: Report, fault: Fault, now: float) -> bool:
        """Say whether the topic stormed with this fault before, so that the record is not to be blamed yet."""
        record = report.record
        is_blamed = fault.fault_class is FaultClass.ROW_PERMANENT and (report.alone or not fault.batch_wide)
        return is_blamed and self._lanes.storms.is_watched(record.topic, fault.code, record.id, now)

    def _decide(self, now: float) -> None:
        """Blame, or send again, what would have made a storm where a neighbour is delivered by now; else it is one."""
        undecided, self.undecided = self.undecided, []
        for failure in undecided:
            since, report, record = failure.since, failure.report, failure.report.record
            lane = self._lanes[record.topic]
            if report.error is None:
                continue
            fault = report.error.fault
            if fault.unless_neighbour_passes and not self.histories.suspicions.is_sent_again(record.id):
                self._question(report, fault, since, now)
                continue
            if self.storming.is_held(record.topic):
                # At once: what is decided after an operator's resume only would close the topic again.
                self.storming.hold(report, now)
            elif lane.last_delivered_at > since and fault.of_row_alone:
                # Sent again, all of these would be refused at once with nothing between, which would look like a storm.
                self._lanes.storms.disproved(record.topic, fault.code)
                self._judge(report, fault, now)
            elif lane.last_delivered_at > since:
                # The failure was before that delivery, so it proves nothing any more: once more, alone.
                self.suspects.append(record)
            elif failure.waits(lane, now):
                self.undecided.append(failure)
            else:
                self.storming.hold(report, now)

    def _apply(self, record: Record, outcome: Outcome, now: float) -> None:
        match outcome:
            case Retry():
                self.histories.failed[record.id] = now, outcome.fault.code
                self.histories.ages(record.id, record.topic, now)
                self._lanes.breakers.probe_ended(record.topic, record.id, now)
                self._observer.retried(record.topic)
                self._retry(record, outcome, now)
            case DeadLetter():
                self._lanes.breakers.probe_ended(record.topic, record.id, now)
                self._die(record, outcome)
            case Hold():
                self._park(record, outcome.fault, outcome.message, now)
            case Alone():
                self.histories.suspicions.suspect(record.id, outcome.fault.code, now)
                self.suspects.append(record)
            case Unknown():
                self.unknown.append(outcome)
            case Delivered():
                raise AssertionError("a failed report is not a delivery")

    def _retry(self, record: Record, outcome: Retry, now: float) -> None:
        history = self.histories.of(record.id)
        if history.dead_letter_id is None:
            self._settling.retry(record.id, outcome)
            self._hold_key(record)
            return
        # A replay's row is not in the outbox, so that `retry` has no place for it: it stays `replaying` and waits here.
        self.histories.by_id[record.id] = history._replace(attempts=outcome.attempts)
        self.holding.leave(record, HeldState.SCHEDULED, outcome.fault.name, now, now + outcome.delay_seconds)

    def _hold_key(self, record: Record) -> None:
        gate_key = self._gate.key_of(record)
        if gate_key is not None:
            self._gate.hold(gate_key, record.id)

    def _die(self, record: Record, outcome: DeadLetter) -> None:
        history = self.histories.of(record.id)
        if history.dead_letter_id is not None:
            self._settling.died_again(record, history.dead_letter_id, outcome)
        else:
            self._settling.dead(record.id, outcome)
        if outcome.holds_key:
            self._hold_key(record)
        self._observer.died(record.topic, outcome.reason.value)

    def _park(self, record: Record, fault: Fault, message: str, now: float) -> None:
        """A systemic fault: the topic's breaker opens or stays open, and the record waits behind it in the database."""
        self.holding.open_breaker(record.topic, fault, message, now)
        self._lanes.breakers.probe_failed(record.topic, record.id, fault, message, now)
        self.histories.failed[record.id] = now, fault.code
        self.holding.leave(record, HeldState.PARKED, fault.name, now)

    def admitted(self, record: Record, held: HeldRecord) -> None:
        """A held record was read again and goes: remember what it went through."""
        if held.history != NO_HISTORY:
            self.histories.by_id[record.id] = held.history


def _is_sent_back(report: Report) -> bool:
    """Whether a transaction left the record out, since an earlier one of its key failed in it."""
    return report.error is not None and report.error.fault.name == "SENT_BACK"
