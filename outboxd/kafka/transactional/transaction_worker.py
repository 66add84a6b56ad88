"""The thread on which transactions run: jobs one after the other, and in between the idle producer's news."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Protocol

from confluent_kafka import KafkaException

from outboxd.errors import OutboxdError
from outboxd.kafka.client.codes import in_words
from outboxd.kafka.transactional.transactional_producer import TransactionsEndedError
from outboxd.policy.blame.cause import cause
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.faults import FaultClass, own_fault
from outboxd.stopwatch import Stopwatch

IDLE_SECONDS = 1.0

Job = Callable[[], None]


class Jobs(Protocol):
    """The worker's queue; None ends the worker."""

    def put(self, job: Job | None) -> None:
        """Append a job."""
        ...

    def get(self, *, timeout: float) -> Job | None:
        """Wait for the next job. Raises `queue.Empty` when none comes within `timeout` seconds."""
        ...


def work_off(jobs: Jobs, idle: Job, fail: Callable[[DeliveryFault], None], watch: Stopwatch) -> None:
    """The worker's life. Whatever ends a job is told to the relay: a silent death would be a hang."""
    while True:
        job: Job | None
        try:
            job = jobs.get(timeout=IDLE_SECONDS)
        except Empty:
            job = idle
        if job is None:
            return
        try:
            with watch.running():
                job()
        except TransactionsEndedError as ended:
            fail(ended.fault)
        except Exception as error:  # noqa: BLE001 - a bug must show as a failure, whatever it is
            fail(DeliveryFault(own_fault("NEVER_REPORTED"), told(error)))


def told(error: Exception) -> str:
    """Return what people are told of an error that ended a job, with the remedy where it is the cluster's."""
    if isinstance(error, TransactionsEndedError) and error.fault.fault.fault_class is FaultClass.CLUSTER:
        return cause(error.fault.fault, error.fault.text)
    if isinstance(error, KafkaException):
        return in_words(error.args[0])
    return str(error) if isinstance(error, OutboxdError) else f"{type(error).__name__}: {error}"
