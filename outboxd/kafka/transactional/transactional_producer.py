"""One transactional producer, from its init to its end: the calls on it, and what their failures mean.

    call ──▶ through
      │ timed out, or may be repeated: the same call again
      │ the library wants the transaction aborted: MustAbortError
      ▼ fenced, fatal, or nobody wants more: TransactionsEndedError

Its init fences every producer of the same `transactional.id` before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.errors import OutboxdError
from outboxd.kafka.client.client_config import TRANSACTION_TIMEOUT_MS
from outboxd.kafka.client.codes import in_words
from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.policy.blame.fencings import FENCED_CODES
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.faults import own_fault

CALL_SECONDS = 5.0
CALLS_SECONDS_MAX = 60.0
FENCE_CALL_SECONDS = 0.05
"""So long the first call of an init waits, and each after it twice as long. Brokers that are still at the end of the
transaction before refuse it, and the client asks again after half a second; called again it asks at once (measured).
"""
ABORT_SECONDS_MAX = CALL_SECONDS
"""An abort is not waited for longer: nobody else goes on meanwhile, and the next producer's init does it as well."""
ABANDON_SECONDS = 1.0
POLL_SECONDS = 0.05


class TransactionsEndedError(OutboxdError):
    """The transactional producer cannot go on; what it had open is resolved by its successor's recovery."""

    def __init__(self, fault: DeliveryFault) -> None:
        super().__init__(f"{fault.fault.name}: {fault.text}")
        self.fault = fault


class MustAbortError(Exception):
    """The library wants the transaction aborted, for this error."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(in_words(error))
        self.error = error


class TransactionalProducer:
    """Has at most one transaction open. All but `purge` is called on one thread."""

    def __init__(
        self,
        client: Producer,
        *,
        is_wanted: Callable[[], bool],
        timeout_seconds: float = TRANSACTION_TIMEOUT_MS / 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing of a broker yet; `fence` does.

        Args:
            client: the library's producer, which has a `transactional.id`.
            is_wanted: False when the owner wants no more: waiting ends then.
            timeout_seconds: its `transaction.timeout.ms`, in seconds.
            monotonic: the clock that all waiting is measured by.
        """
        self.client = client
        # An inbox for each producer: no report of one before can be taken for one of this.
        self.inbox = Inbox()
        self._is_wanted = is_wanted
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._opened_at: float | None = None

    # One transaction.

    def fence(self) -> None:
        """Fence every producer before this one."""
        try:
            self._call(self.client.init_transactions, call_seconds=FENCE_CALL_SECONDS)
        except MustAbortError as error:
            raise TransactionsEndedError(DeliveryFault(own_fault("NEVER_REPORTED"), str(error))) from error

    def begin(self) -> None:
        """Open a transaction."""
        self._opened_at = self._monotonic()
        self._call(lambda _: self.client.begin_transaction())

    def commit(self) -> None:
        """Commit it. Raises MustAbortError when it can only be aborted."""
        self._call(self.client.commit_transaction)
        self._opened_at = None

    def abort(self) -> None:
        """Abort it: nothing of it becomes visible. The producer is not to be used any more."""
        # When it cannot even be aborted, the next producer's init does it.
        try:
            with suppress(MustAbortError):
                self._call(self.client.abort_transaction, ABORT_SECONDS_MAX)
        except TransactionsEndedError as ended:
            # Brokers that refused its every partition, for a right or a name, know of no transaction to be aborted. And
            # what is on its way to a topic that was deleted, or made anew, may keep the client waiting for minutes.
            is_needless = ended.fault.fault.name in ("INVALID_TXN_STATE", "_TIMED_OUT")
            if not is_needless or not self._is_wanted():
                raise
        self._opened_at = None

    def why_spoilt(self) -> KafkaError | None:
        """Return why the open transaction can only be aborted; None where it need not be."""
        try:
            # While one is open the call does nothing but to say what is wrong.
            self.client.begin_transaction()
        except KafkaException as refused:
            error: KafkaError = refused.args[0]
            return error if error.txn_requires_abort() else None
        return None

    def abandon(self) -> None:
        """Nobody wants more: spare the readers the wait for the time-out of what is open."""
        if self._opened_at is not None:
            with suppress(KafkaException):
                self.client.abort_transaction(ABANDON_SECONDS)

    def _call(
        self,
        call: Callable[[float], object],
        seconds_max: float = CALLS_SECONDS_MAX,
        *,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """Make one transactional call to its end: a call that timed out, or may be repeated, is made again."""
        deadline = self._monotonic() + seconds_max
        while True:
            try:
                call(call_seconds)
            except KafkaException as failed:
                error: KafkaError = failed.args[0]
                if error.txn_requires_abort():
                    raise MustAbortError(error) from failed
                is_over = not self._is_wanted() or self._monotonic() >= deadline
                if error.fatal() or not error.retriable() or is_over:
                    raise self.ended(error) from failed
                call_seconds = min(2 * call_seconds, CALL_SECONDS)
            else:
                return

    # Its news.

    def serve(self) -> None:
        """Let the idle producer tell its news. Raises TransactionsEndedError when it was fenced meanwhile."""
        self._serve(self.client.poll, 0.0)

    def flush(self, seconds: float = POLL_SECONDS) -> None:
        """Wait a little for all reports. The transaction has all its records, so nothing lingers for more."""
        if not self._is_wanted():
            raise given_up()
        self._serve(self.client.flush, seconds)

    def _serve(self, call: Callable[[float], object], seconds: float) -> None:
        try:
            call(seconds)
        except KafkaException as error:
            raise self.ended(error.args[0]) from error

    def purge(self) -> None:
        """Drop what is queued: the transaction under way will be aborted or fenced. May be called on any thread."""
        self.client.purge(in_queue=True, in_flight=True, blocking=False)

    # Its end.

    def ended(self, error: KafkaError) -> TransactionsEndedError:
        """The producer is at its end: by a rival, or since a transaction of our own was open for too long?"""
        opened_at, self._opened_at = self._opened_at, None
        open_seconds = 0.0 if opened_at is None else self._monotonic() - opened_at
        is_told_so = error.name() in FENCED_CODES or error.code() == KafkaError.INVALID_TXN_STATE
        if is_told_so and open_seconds >= self._timeout_seconds:
            text = f"open for {open_seconds:.1f} s, longer than transaction.timeout.ms: {error.str()}"
            return TransactionsEndedError(DeliveryFault(own_fault("TRANSACTION_TIMED_OUT"), text))
        self._opened_at = opened_at
        return TransactionsEndedError(delivery_fault(error, alone=True))


def given_up() -> TransactionsEndedError:
    """Return the end of a producer that nobody wants any more."""
    return TransactionsEndedError(DeliveryFault(own_fault("NEVER_REPORTED"), "ownership ended"))
