"""Transactions: a batch of records, all or nothing, each with its progress record.

    deliver ──▶ one transaction ──committed──▶ delivered
                    │ aborted
                    ├─ a record's own verdict: its error; what stands behind it is sent back, the others go at once
                    ├─ a verdict on all of it, for one of its topics or its progress record: its halves, see `aborts`
                    └─ a batch's verdict: the others go at once; the suspects are halved, and at last sent one record
                       a batch

What was committed is told before the next transaction begins, and so is which row is to die, unless earlier ones of its
key are still to be tried. All else is told at the end, since it may depend on what others met.

Within a transaction the keys are pipelined: order holds, since all of it becomes visible or none. When a record of
a key is to blame, later ones of its key are sent back, since only the relay knows whether the key goes on. After an
abort that a poison record caused, the next transaction on the same producer failed (measured), so a new one is
taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from outboxd.kafka.messages import TOPICS_REMEMBERED_MAX
from outboxd.kafka.transactional.aborts import AbortedError, halved
from outboxd.kafka.transactional.transaction_client import TransactionClient
from outboxd.kafka.transactional.transactional_producer import TransactionsEndedError
from outboxd.kafka.transactional.verdicts import Attempt, Pieces, plan, sent_back, sort_out
from outboxd.policy.exchange.messages import DeliveryFault, ProgressRow, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record, id_of, topic_of

TRANSACTIONS_MAX = 24
"""How many transactions one batch is tried in before the relay gets back what is left."""
CAUSELESS_ABORTS_MAX = 5

Tell = Callable[[list[Report]], None]


class Transactions:
    """Runs transactions one after the other, on the thread of whoever calls."""

    def __init__(self, client: TransactionClient) -> None:
        """`client` runs each of them; it is fenced and begun before the first."""
        self.client = client
        self._known_topics: set[str] = set()
        self._sick_topics: set[str] = set()
        self._suspects: set[int] = set()

    def suspect(self, record_id: int) -> None:
        """Send this record in a batch of its own. May be called on any thread."""
        self._suspects.add(record_id)

    def deliver(self, records: Sequence[Record], restated: Sequence[ProgressRow], tell: Tell) -> list[Report]:
        """Deliver records in as many transactions as their faults make necessary; return a report for each of which
        `tell` was not given one.

        Args:
            records: in the order that they are to be read in.
            restated: rows of earlier transactions that the progress record of each of these states too.
            tell: is given the reports that stand after a transaction, perhaps none, before another one begins.

        Raises:
            TransactionsEndedError: the producer is fenced or failed; outcomes are unknown.
        """
        try:
            return self._deliver(records, restated, tell)
        except TransactionsEndedError:
            if not self.client.is_wanted():
                self.client.abandon()
            raise

    def _deliver(self, records: Sequence[Record], restated: Sequence[ProgressRow], tell: Tell) -> list[Report]:
        client = self.client
        absent, there = self._without_absent(records)
        pieces = Pieces(deque(plan(there, self._suspects, self._sick_topics)), absent)
        causeless = 0
        for ended in range(TRANSACTIONS_MAX):
            part = pieces.next()
            if part is None:
                break
            if ended:
                tell(pieces.take_standing(part))
            try:
                pieces.delivered(part, client.transact(part, restated))
            except AbortedError as aborted:
                aborted.forget_frames()
                client.drop_producer()
                if aborted.faults or aborted.refusal is not None:
                    self._after_abort(part, aborted, pieces)
                    continue
                causeless += 1
                if causeless >= CAUSELESS_ABORTS_MAX:
                    cause = "nobody says why" if aborted.spoilt_by is None else aborted.spoilt_by.str()
                    text = f"transactions were aborted again and again: {cause}"
                    raise TransactionsEndedError(DeliveryFault(own_fault("NEVER_REPORTED"), text)) from aborted
                pieces.parts.appendleft(part)
            else:
                # Mostly there are none, and a transaction has thousands of records.
                if self._suspects:
                    self._suspects.difference_update(map(id_of, part.records))
                if self._sick_topics:
                    self._sick_topics.difference_update(map(topic_of, part.records))
        return pieces.conclude()

    def _after_abort(self, part: Attempt, aborted: AbortedError, pieces: Pieces) -> None:
        faults, refusal = aborted.faults, aborted.refusal
        if refusal is not None:
            halves = halved(part, refusal)
            if halves:
                pieces.parts.extendleft(reversed(halves))
                return
            faults = dict.fromkeys(map(id_of, part.records), refusal.fault)
        sorted_out = sort_out(part, faults, aborted.passed, self.client.examined)
        self._suspects.update(sorted_out.suspects)
        self._suspects.difference_update(sorted_out.blamed)
        pieces.take(sorted_out)
        if len(self._sick_topics) >= TOPICS_REMEMBERED_MAX:
            # What is left of topics that nothing is sent to any more: one that is sick still is found so again.
            self._sick_topics.clear()
        self._sick_topics |= sorted_out.sick_topics
        self._known_topics -= sorted_out.sick_topics

    def _without_absent(self, records: Sequence[Record]) -> tuple[list[Report], Sequence[Record]]:
        """Take the records of topics aside that are not there: the client would keep a transaction waiting for them."""
        missing: dict[str, DeliveryFault] = {}
        for topic in set(map(topic_of, records)) - self._known_topics:
            fault = self.client.topic_fault(topic)
            if fault is None:
                if len(self._known_topics) >= TOPICS_REMEMBERED_MAX:
                    self._known_topics.clear()
                self._known_topics.add(topic)
            else:
                missing[topic] = fault
        if not missing:
            return [], records
        reports: list[Report] = []
        for record in records:
            if record.topic in missing:
                told = any(report.record.topic == record.topic for report in reports)
                reports.append(
                    sent_back(record) if told else Report(record, missing[record.topic], record.partition, None, True)
                )
        return reports, [record for record in records if record.topic not in missing]
