"""Verdicts on an aborted transaction: who is to blame, who goes again, and how.

A batch is not a culprit: brokers refuse whole batches for one record. So the suspects of such a verdict go again in
ever smaller transactions, and at last one record a batch, where each gets a verdict of its own and those before it
are proved good. Nothing here speaks to a broker.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from outboxd.policy.exchange.messages import DeliveryFault, Report, error_of
from outboxd.policy.faults import FaultClass, fault_of, own_fault
from outboxd.policy.rows.records import Record, topic_of

LONE_ROWS_MAX = 200
"""One record a batch is slow: more suspects are halved first."""

Faults = Mapping[int, DeliveryFault]
Examine = Callable[[Record, DeliveryFault], DeliveryFault]

DOUBTED_MAX = 3
"""So many records of a topic with a verdict that may be the topic's, and none delivered, are enough to say so."""

_TOPIC_WIDE = (FaultClass.TOPIC, FaultClass.CLUSTER)
_OF_ROW = (FaultClass.ROW_PASSING, FaultClass.ROW_PERMANENT)


class Way(enum.Enum):
    """How a producer sends: many records a batch, or one."""

    SHARED = "shared"
    LONE = "lone"


class Attempt(NamedTuple):
    """Records for one transaction. `is_probe`: of a topic that failed before: others shall not wait for it for long."""

    records: Sequence[Record]
    way: Way = Way.SHARED
    is_probe: bool = False


@dataclass(slots=True)
class SortedOut:
    """What follows from one abort.

    Attributes:
        reports: the blamed ones' errors, and those that are sent back.
        again: what is tried next, in this order.
        blamed: the ids of the blamed ones.
        suspects: ids under a verdict that was not on them alone.
        doubted: records with a verdict of their own that may be the topic's: what others of the topic meet will tell.
        passed_topics: topics of which something was acknowledged by itself.
        blocked_keys, sick_topics: what may not be tried by later transactions of the same batch.
    """

    reports: list[Report] = field(default_factory=list)
    again: list[Attempt] = field(default_factory=list)
    blamed: set[int] = field(default_factory=set)
    suspects: set[int] = field(default_factory=set)
    doubted: list[Report] = field(default_factory=list)
    passed_topics: set[str] = field(default_factory=set)
    blocked_keys: dict[tuple[str, str], int] = field(default_factory=dict)
    sick_topics: set[str] = field(default_factory=set)

    def blocks(self, record: Record) -> bool:
        """Say whether the record stands behind a blamed one."""
        if record.topic in self.sick_topics:
            return True
        blamed_id = None if record.key is None else self.blocked_keys.get((record.topic, record.key))
        return blamed_id is not None and record.id > blamed_id


@dataclass(slots=True)
class Pieces:
    """A batch under way: the transactions still to be tried, and the reports until now, `committed` the last one's.
    `asked_again` are the ids of doubted records that were tried once more after others of their topic had passed.
    """

    parts: deque[Attempt]
    reports: list[Report]
    doubted: list[Report] = field(default_factory=list)
    passed_topics: set[str] = field(default_factory=set)
    asked_again: set[int] = field(default_factory=set)
    committed: list[Report] = field(default_factory=list)

    def next(self) -> Attempt | None:
        """Return what is tried next, None at the end.

        Last goes what is doubted though others of its topic passed since: the topic may have been the culprit at that
        time, and not be any more. Only what is refused once more is itself to blame.
        """
        if not self.parts:
            again = [report.record for report in self.doubted if self._is_open(report)]
            if not again:
                return None
            self.doubted = [report for report in self.doubted if not self._is_open(report)]
            self.asked_again.update(record.id for record in again)
            return Attempt(again, Way.LONE)
        return self.parts.popleft()

    def _is_open(self, report: Report) -> bool:
        return report.record.topic in self.passed_topics and report.record.id not in self.asked_again

    def delivered(self, part: Attempt, reports: list[Report]) -> None:
        """A transaction was committed."""
        self.committed = reports
        self.passed_topics.update(map(topic_of, part.records))

    def take_standing(self, following: Attempt) -> list[Report]:
        """Return the reports that stand whatever this transaction and those after it come to: of what the last one
        committed, and of each row that is to die and in whose key nothing is left to be tried, with what was sent back
        for it. What other failures mean, the deliveries of others tell, which come first.
        """
        committed, self.committed = self.committed, []
        dying = {_key_of(report.record) for report in self.reports if _is_for_good(report)}
        if not dying:
            return committed
        dying.difference_update(_key_of(record) for part in (following, *self.parts) for record in part.records)
        dying.difference_update(_key_of(report.record) for report in self.doubted)
        standing = [report for report in self.reports if _key_of(report.record) in dying]
        self.reports = [report for report in self.reports if _key_of(report.record) not in dying]
        return committed + _first_of_each_key(standing)

    def take(self, sorted_out: SortedOut) -> None:
        """Go on after an abort: what is tried again goes first, what stands behind a blamed one not at all."""
        self.reports += sorted_out.reports
        self.doubted += sorted_out.doubted
        self.passed_topics |= sorted_out.passed_topics
        self.parts.extendleft(reversed(sorted_out.again))
        doubted = Counter(report.record.topic for report in self.doubted)
        sorted_out.sick_topics |= {
            topic for topic, rows in doubted.items() if rows >= DOUBTED_MAX and topic not in self.passed_topics
        }
        if not sorted_out.blamed:
            return
        waiting, self.parts = self.parts, deque()
        for part in waiting:
            going = [record for record in part.records if not sorted_out.blocks(record)]
            self.reports += [sent_back(record) for record in part.records if sorted_out.blocks(record)]
            if going:
                self.parts.append(part._replace(records=going))

    def conclude(self) -> list[Report]:
        """Return all reports that were not taken, now that it is known what others of the doubted ones' topics met.

        Failures stand before what was sent back for them. A row's own stands behind whatever of its key was not
        delivered: of two that are due again a successor would send the later one first, and of two that are to die
        only the first may, where it holds the key.
        """
        told = [
            report._replace(error=_own(report.error))
            if report.error and report.record.id in self.asked_again
            else report
            for report in self.doubted
        ]
        left = [sent_back(record) for part in self.parts for record in part.records]
        return _first_of_each_key(told + self.committed + self.reports + left)


def plan(records: Sequence[Record], suspects: Collection[int], sick_topics: Collection[str]) -> list[Attempt]:
    """Return the transactions to try a batch in: sound records first, then suspects, then topics that failed before."""
    if not suspects and not sick_topics:
        return [Attempt(records)] if records else []
    probes: dict[str, list[Record]] = {}
    others: list[Record] = []
    for record in records:
        (probes.setdefault(record.topic, []) if record.topic in sick_topics else others).append(record)
    sound, doubtful = _divide(others, suspects)
    attempts = [Attempt(sound)] if sound else []
    attempts += _narrowed(doubtful)
    attempts += [Attempt(probe, Way.SHARED, is_probe=True) for probe in probes.values()]
    return attempts


def sort_out(part: Attempt, faults: Faults, passed: Collection[int], examine: Examine) -> SortedOut:
    """Decide what follows from an abort.

    Args:
        part: what was tried.
        faults: the records' errors by their ids; not empty.
        passed: the ids that were acknowledged before the abort.
        examine: looks at a verdict closer.
    """
    is_lone = part.way is Way.LONE or len(part.records) == 1
    own = {record_id: fault for record_id, fault in faults.items() if is_lone or not _is_shared(fault)}
    if own:
        own = {record_id: _alone(fault) if is_lone else fault for record_id, fault in own.items()}
        return _blame(part, own, passed, examine)
    rest, doubtful = _divide(part.records, faults)
    again = [part._replace(records=rest)] if rest else []
    return SortedOut(again=again + _narrowed(doubtful), suspects=set(faults))


def _blame(part: Attempt, own: Faults, passed: Collection[int], examine: Examine) -> SortedOut:
    found = SortedOut()
    if part.way is not Way.LONE:
        # What shared a batch with a refused record is not proved good.
        passed = ()
    found.passed_topics = {record.topic for record in part.records if record.id in passed}
    proved: list[Record] = []
    others: list[Record] = []
    for record in part.records:
        if found.blocks(record):
            found.reports.append(sent_back(record))
            continue
        fault = own.get(record.id)
        if fault is None:
            (proved if record.id in passed else others).append(record)
            continue
        fault = examine(record, fault)
        report = Report(record, fault, record.partition, None, True)
        is_doubted = fault.fault.unless_neighbour_passes
        (found.doubted if is_doubted else found.reports).append(report)
        found.blamed.add(record.id)
        if record.key is not None:
            found.blocked_keys.setdefault((record.topic, record.key), record.id)
        if fault.fault.fault_class in _TOPIC_WIDE and not is_doubted:
            found.sick_topics.add(record.topic)
    found.again = [attempt for attempt in (Attempt(proved), part._replace(records=others)) if attempt.records]
    return found


def sent_back(record: Record) -> Report:
    """Return the report of a record that was not tried, or not to its end, through no fault of its own."""
    fault = DeliveryFault(own_fault("SENT_BACK"), "another row failed in the same transaction")
    return Report(record, fault, None, None, True)


def _key_of(record: Record) -> tuple[str, str | int]:
    """Return the key that the record's order is kept by; one without a key has an order of its own."""
    return record.topic, record.id if record.key is None else record.key


def _first_of_each_key(reports: list[Report]) -> list[Report]:
    """Return these reports, of which only the first that failed of a key tells a fault of the row's own."""
    if not any(map(error_of, reports)):
        return reports
    first_ids: dict[tuple[str, str | int], int] = {}
    for record in [report.record for report in reports if report.error is not None]:
        key = _key_of(record)
        first_ids[key] = min(record.id, first_ids.get(key, record.id))
    return [sent_back(report.record) if _stands_behind(report, first_ids) else report for report in reports]


def _is_for_good(report: Report) -> bool:
    return report.error is not None and report.error.fault.fault_class is FaultClass.ROW_PERMANENT


def _stands_behind(report: Report, first_ids: Mapping[tuple[str, str | int], int]) -> bool:
    record, error = report.record, report.error
    return error is not None and error.fault.fault_class in _OF_ROW and first_ids[_key_of(record)] < record.id


def _is_shared(fault: DeliveryFault) -> bool:
    return fault.fault.batch_wide or fault.fault.unless_neighbour_passes


def _alone(fault: DeliveryFault) -> DeliveryFault:
    """The record was the only one of its batch: a verdict on the batch is one on the record."""
    if not fault.fault.batch_wide:
        return fault
    return DeliveryFault(fault_of(fault.fault.code, fault.fault.name, fault.text, alone=True), fault.text)


def _own(fault: DeliveryFault) -> DeliveryFault:
    """A neighbour passed: what might have been the topic's fault is the row's."""
    own = replace(fault.fault, fault_class=FaultClass.ROW_PERMANENT, unless_neighbour_passes=False, batch_wide=False)
    return DeliveryFault(own, fault.text)


def _divide(records: Sequence[Record], suspects: Collection[int]) -> tuple[list[Record], list[Record]]:
    """Return the sound records, and the suspects with the later ones of their keys."""
    keys: set[tuple[str, str]] = set()
    sound: list[Record] = []
    doubtful: list[Record] = []
    for record in records:
        is_suspect = record.id in suspects
        if is_suspect and record.key is not None:
            keys.add((record.topic, record.key))
        is_behind = record.key is not None and (record.topic, record.key) in keys
        (doubtful if is_suspect or is_behind else sound).append(record)
    return sound, doubtful


def _narrowed(doubtful: Sequence[Record]) -> list[Attempt]:
    if not doubtful:
        return []
    if len(doubtful) <= LONE_ROWS_MAX:
        return [Attempt(doubtful, Way.LONE)]
    middle = len(doubtful) // 2
    return [Attempt(doubtful[:middle]), Attempt(doubtful[middle:])]
