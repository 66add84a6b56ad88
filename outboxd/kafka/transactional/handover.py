"""The handover between the relay's thread and the worker's: what gathers for the next transaction, and what is through.

    add ──▶ gathered ──the worker waits──▶ a job of the worker ──▶ ended, each part of it as soon as its outcome stands
               ▲                                 │
               └──────── what gathered meanwhile is the next job, unless the relay has not heard of a failure

When a record fails, the worker waits for the relay before another job, and all that gathered behind it goes back: the
relay may hold the key or the topic by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue

from outboxd.kafka.transactional.progress import RESTATED_FROM, RESTATING_MAX, UNSETTLED_MAX
from outboxd.kafka.transactional.refusals import Key, key_of
from outboxd.kafka.transactional.transaction_worker import Jobs
from outboxd.kafka.transactional.transactional_producer import TransactionsEndedError
from outboxd.kafka.transactional.transactions import Transactions
from outboxd.policy.exchange.messages import (
    DeliveryFault,
    Event,
    ProgressRow,
    Recovered,
    RecoverFailed,
    Report,
    TransactionEnded,
    error_of,
)
from outboxd.policy.rows.records import Record
from outboxd.policy.rows.transaction_size import TransactionSize


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """A batch is through, or a part of it committed. `number` is the last transaction, None where none was committed
    since the part before; `restated` are the rows of earlier ones that its progress record states too.
    """

    reports: list[Report]
    number: int | None
    has_failed: bool
    restated: Sequence[ProgressRow] = ()


class Handover:
    """One worker's, made anew with each: nobody hears of a worker that is gone."""

    unsettled_max, restated_from = UNSETTLED_MAX, RESTATED_FROM

    def __init__(
        self,
        transactions: Transactions,
        jobs: Jobs,
        gone: threading.Event,
        size: TransactionSize,
        *,
        post: Callable[[Event], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Begin with a worker that waits for its recovery.

        Args:
            transactions: deliver each batch, on the worker's thread.
            jobs: the worker's queue.
            gone: is set by `end`; others of the worker look at it as well.
            size: the limits of the next batch, which learn from those before.
            post: leaves `Recovered`, `RecoverFailed` or `TransactionEnded` in the relay's mailbox.
            monotonic: the clock that a batch is measured by.
        """
        self._transactions = transactions
        self._jobs = jobs
        self._gone = gone
        self._size = size
        self._post = post
        self._monotonic = monotonic
        # Between a worker's word to the relay and the end of its life; what gathers, what is restated, `is_busy` and
        # `_unsettled` are both threads'.
        self._lock = threading.Lock()
        self._gathered: list[Record] = []
        self._gathered_bytes = 0
        self._under_way: Sequence[Record] = ()
        self._unsettled: set[int] = set()
        self._told = 0
        self._failures = 0
        """In so many parts that the relay has not taken something failed."""
        self._restated: Sequence[ProgressRow] = ()
        self._is_restated = True
        self.is_busy = True
        """Whether the worker has a job, or waits for the relay."""
        # No SimpleQueue: a signal may have the relay's thread wait for one without limit, see `outboxd.daemon.mailbox`.
        self.ended: Queue[EndedBatch] = Queue()
        """The batches that are through, and the parts of them, in their order."""
        self.failure: DeliveryFault | None = None
        """What ended the producer."""

    # The relay's thread.

    def room(self) -> tuple[int, int]:
        """Return how many rows and bytes may gather still.

        The worker may take what gathered meanwhile: there is never less room than is seen here.
        """
        return self._size.rows - len(self._gathered), self._size.size_bytes - self._gathered_bytes

    def keys(self) -> set[Key]:
        """Return the keys of what gathered and of the batch under way."""
        with self._lock:
            return self._keys()

    def await_ended(self, taken: list[EndedBatch], timeout_seconds: float) -> None:
        """Take what is through; where nothing was taken before, wait for it so long, unless the worker is idle."""
        if self.is_busy and not taken and timeout_seconds > 0:
            with suppress(Empty):
                taken.append(self.ended.get(timeout=timeout_seconds))
        self._take_ended(taken)

    def take_ended(self, taken: list[EndedBatch]) -> set[Key]:
        """Take what is through, and return the keys of what is not as of then."""
        with self._lock:
            self._take_ended(taken)
            return self._keys()

    def _take_ended(self, taken: list[EndedBatch]) -> None:
        while not self.ended.empty():
            taken.append(self.ended.get())

    def add(self, records: Sequence[Record], size_bytes: int) -> None:
        """Let these gather, and give the worker all that did, where it waits for that."""
        with self._lock:
            self._gathered += records
            self._gathered_bytes += size_bytes
            self._go_on_where_idle()

    def settled(self, number: int) -> None:
        """All transactions up to this one are settled: the worker goes on, where too many were not."""
        with self._lock:
            self._unsettled = {unsettled for unsettled in self._unsettled if unsettled > number}
            self._go_on_where_idle()

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """These rows of transactions cannot be settled: state them in later progress records too."""
        with self._lock:
            self._is_restated = self._is_restated and set(rows) <= set(self._restated)
            self._restated = rows
            self._go_on_where_idle()

    def take_back(self, parts: int) -> list[Record]:
        """In so many parts that were taken a record failed: return what gathered behind it; the worker goes on with
        what is added from now on, once it is through with its batch, and no other such part is left.
        """
        with self._lock:
            self._failures -= parts
            self.is_busy = bool(self._under_way or self._failures)
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        return gathered

    def await_recovery(self) -> None:
        """Let records gather until the recovery, which is the worker's next job, has an answer."""
        self.is_busy = True

    def end(self) -> None:
        """The worker is gone: whatever it still does, the relay hears nothing of it."""
        with self._lock:
            self._gone.set()

    # The worker's words to the relay.

    def answer(self, answer: Recovered | RecoverFailed) -> None:
        """The recovery ended so."""
        with self._lock:
            if not self._gone.is_set():
                self.is_busy = isinstance(answer, RecoverFailed)
                self._post(answer)

    def fail(self, fault: DeliveryFault) -> None:
        """The worker cannot go on."""
        with self._lock:
            if not self._gone.is_set():
                self.failure = fault
                self._post(TransactionEnded())

    # On either thread, under the lock.

    def _keys(self) -> set[Key]:
        return {*map(key_of, self._gathered), *map(key_of, self._under_way)}

    def _go_on_where_idle(self) -> None:
        if not self.is_busy:
            self._go_on()

    def _go_on(self) -> None:
        """Make all that gathered the worker's next job."""
        self.is_busy = bool(self._gathered) and self._may_begin()
        if self.is_busy:
            batch, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._under_way = batch
            restated = self._restated if len(self._unsettled) >= self.restated_from else ()
            self._jobs.put(partial(self._deliver, batch, restated))

    def _may_begin(self) -> bool:
        """Whether one more may be unsettled; where rows wait for being stated again, it has others settled."""
        unsettled = len(self._unsettled)
        beyond = 0 if self._is_restated else RESTATING_MAX
        return unsettled < self.unsettled_max + beyond

    # The worker's thread.

    def _deliver(self, batch: Sequence[Record], restated: Sequence[ProgressRow]) -> None:
        """Deliver the batch; then go on with what gathered meanwhile, unless a record failed."""
        transactions = self._transactions
        began_at, self._told = self._monotonic(), transactions.client.number
        try:
            reports = transactions.deliver(batch, restated, partial(self._tell, restated))
        except TransactionsEndedError as failed:
            self.fail(failed.fault)
            return
        with self._lock:
            if self._gone.is_set():
                return
            self._size.took(self._monotonic() - began_at)
            self._under_way = ()
            self._put(reports, restated)
            if not self._failures:
                self._go_on()
        self._post(TransactionEnded())

    def _tell(self, restated: Sequence[ProgressRow], reports: list[Report]) -> None:
        """A transaction of the batch under way ended, and others follow: these are the reports that stand by now.

        Where there are none, that it came to an end is news all the same: the batch may be under way for long.
        """
        with self._lock:
            if self._gone.is_set():
                return
            if reports:
                self._put(reports, restated)
        self._post(TransactionEnded())

    def _put(self, reports: list[Report], restated: Sequence[ProgressRow]) -> None:
        """Leave them for the relay, and what was committed with them; under the lock."""
        number = self._transactions.client.number
        if number == self._told:
            ended = EndedBatch(reports, None, any(map(error_of, reports)))
        else:
            ended = EndedBatch(reports, number, any(map(error_of, reports)), restated)
            self._told = number
            self._unsettled.add(number)
            self._is_restated = self._is_restated or restated is self._restated
        self._failures += ended.has_failed
        self.ended.put(ended)
