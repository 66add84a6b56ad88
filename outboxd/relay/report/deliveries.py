"""Deliveries: records that were acknowledged. Their keys go on at once; the next settlement marks their rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter

from outboxd.policy.exchange.messages import record_of
from outboxd.policy.faults import Fault, FaultClass
from outboxd.policy.keys.key_gate import KeyGate
from outboxd.policy.rows.records import Record, id_of, size_of
from outboxd.relay.memory.lanes import Lanes, shares
from outboxd.relay.memory.settling import Settling
from outboxd.relay.ports import Observer, Report
from outboxd.relay.report.histories import Histories
from outboxd.relay.report.holding import Holding
from outboxd.relay.report.stuck_partitions import StuckPartitions

_partition_of, _offset_of = itemgetter(2), itemgetter(3)
"""Of a report."""


class Deliveries:
    """Lives on the relay's thread."""

    def __init__(
        self,
        *,
        gate: KeyGate,
        lanes: Lanes,
        settling: Settling,
        histories: Histories,
        holding: Holding,
        stuck: StuckPartitions,
        observer: Observer,
    ) -> None:
        """All of these are the relay's; deliveries change them."""
        self._gate = gate
        self._lanes = lanes
        self._settling = settling
        self._histories = histories
        self._holding = holding
        self._stuck = stuck
        self._observer = observer
        self._refused: dict[int, str] = {}
        """Fire-and-forget records that the producer did not take, and their events: they are not settled before their
        report is in. By the event too, since a database that crashes may give an id again while the report of the row
        that had it is still to come.
        """

    def count_losses(self, reports: Sequence[Report], now: float) -> Sequence[Report]:
        """Take the reports of settled fire-and-forget records aside: they only tell how the topic is."""
        kept: list[Report] = []
        delivered: list[Report] = []
        for report in reports:
            record, topic = report.record, report.record.topic
            if topic not in self._lanes.unconfirmed_topics:
                kept.append(report)
                continue
            if self._refused.get(record.id) == record.event_id:
                kept.append(report)
                del self._refused[record.id]
                continue
            lane = self._lanes[topic]
            self._lanes.count_in_flight(lane, -1)
            if report.error is None:
                delivered.append(report)
            else:
                self._lose(record, report.error.fault, now)
        if delivered:
            self._got_through(delivered, now)
        return kept

    def _got_through(self, reports: Sequence[Report], now: float) -> dict[str, int]:
        """Note what deliveries say of their topics; return how many there are, by topic."""
        records = list(map(record_of, reports))
        if self._histories.failed or self._histories.suspicions:
            self._clear(reports, now)
        self._lanes.last_delivered_at = now
        rows_by_topic: dict[str, int] = {}
        for topic, share in shares(records).items():
            rows = rows_by_topic[topic] = len(share)
            self._lanes[topic].last_delivered_at = now
            self._lanes.storms.delivered(topic, now)
            self._observer.delivered(topic, rows, sum(map(size_of, share)))
        if self._lanes.breakers.open:
            self._holding.close_breakers(records, now)
        if self._stuck.is_watching:
            self._stuck.delivered(reports, now)
        return rows_by_topic

    def _lose(self, record: Record, fault: Fault, now: float) -> None:
        self._observer.failed(record.topic, fault.name, fault.fault_class.value)
        self._observer.event("record_lost", topic=record.topic, error_code=fault.name, confirm="none")
        breakers = self._lanes.breakers
        if fault.fault_class in (FaultClass.TOPIC, FaultClass.CLUSTER):
            self._holding.open_breaker(record.topic, fault, fault.meaning, now)
            breakers.probe_failed(record.topic, record.id, fault, fault.meaning, now)
        breakers.probe_ended(record.topic, record.id, now)

    def unconfirmed(
        self, records: Sequence[Record], reports: Sequence[Report], now: float, questioned: Collection[int] = ()
    ) -> list[Record]:
        """The producer was given fire-and-forget records, and what it took is settled by that; return what their keys
        let go next.

        `reports` came since. One that tells of a failure so early is a refusal of `produce()` itself, since no callback
        was served meanwhile: that record was never on its way, so it has the outcome that it would have on any route.
        So have those of `questioned`: they were refused too, and their reports come later.
        """
        failed = {(report.record.id, report.record.event_id) for report in reports if report.error is not None}
        if failed or questioned:
            refused = {
                record.id: record.event_id
                for record in records
                if record.id in questioned or (record.id, record.event_id) in failed
            }
            self._refused |= refused
            records = [record for record in records if record.id not in refused]
        return self._settle_unconfirmed(records, now) if records else []

    def forget_refused(self) -> None:
        """The producer was replaced: no report of those that it refused comes any more."""
        self._refused.clear()

    def _settle_unconfirmed(self, records: Sequence[Record], now: float) -> list[Record]:
        reports = [Report(record, None, None, None) for record in records]
        for record in records if self._histories.failed else ():
            self._histories.failed.pop(record.id, None)
        if self._histories.by_id:
            reports = self._delivered_at_last(reports)
        self._note_settled(reports, now)
        return self._gate.release_all(records)

    def take(self, reports: Sequence[Report], now: float, now_ms: int) -> list[Record]:
        """These were acknowledged: they are to be settled; return what their keys let go next."""
        records = list(map(record_of, reports))
        for topic, rows in self._got_through(reports, now).items():
            self._lanes.count_in_flight(self._lanes[topic], -rows)
        if self._histories.by_id:
            reports = self._delivered_at_last(reports)
        self._note_settled(reports, now)
        self._observer.acknowledged_after(max(0, now_ms - records[0].created_at_ms) / 1000, len(records))
        return self._gate.release_all(records)

    def _clear(self, reports: Sequence[Report], now: float) -> None:
        """Forget what the delivered records had failed with."""
        for report in reports:
            self._histories.failed.pop(report.record.id, None)
            self._histories.suspicions.passed(report, now)

    def _note_settled(self, reports: Sequence[Report], now: float) -> None:
        settling = self._settling
        settling.ids += map(id_of, map(record_of, reports))
        settling.partitions += map(_partition_of, reports)
        settling.offsets += map(_offset_of, reports)
        if settling.first_at is None:
            settling.first_at = now

    def _delivered_at_last(self, reports: Sequence[Report]) -> list[Report]:
        """Note records that had failed before; return the reports whose rows are still in the outbox."""
        kept: list[Report] = []
        for report in reports:
            record_id = report.record.id
            history = self._histories.ended(record_id)
            if history is None or history.dead_letter_id is None:
                kept.append(report)
            else:
                # It stays in memory until that is written: the database would else show it as still to be sent.
                self._settling.replayed(report.record, history.dead_letter_id, report.partition, report.offset)
            if history is not None and history.dead_letter_id is None:
                self._settling.out_of_retry(record_id)
        return kept
