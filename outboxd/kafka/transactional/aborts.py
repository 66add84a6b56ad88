"""Aborts: what a transaction was aborted for, and what is tried next where no record's own report says it.

For a missing right on one topic the client purges the records of all, and keeps the cause to itself until it is asked.
A refused progress record has its cause, and no record that is to blame. Either may be the affair of a part only: the
topics are halved until one is refused alone, the rows until their progress record is small enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError

from outboxd.kafka.inbox import delivery_fault
from outboxd.kafka.transactional.verdicts import Attempt, Faults
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.faults import FaultClass, own_fault
from outboxd.policy.rows.records import topic_of

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The transaction as a whole was refused. `is_of_one_topic`: of one of its topics, and not of all that it has."""

    fault: DeliveryFault
    is_of_one_topic: bool
    is_too_large: bool = False


class AbortedError(Exception):
    """The transaction was aborted. `faults` are the records' own, by id; `passed` are the acknowledged ids. Where no
    record has a fault of its own, `spoilt_by` is what the client says of the whole, and `refusal` what that means, if
    it is more than a passing fault.
    """

    def __init__(
        self,
        faults: Faults,
        passed: frozenset[int] = frozenset(),
        *,
        spoilt_by: KafkaError | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__("aborted")
        self.faults = faults
        self.passed = passed
        self.spoilt_by = spoilt_by
        self.refusal = refusal

    def forget_frames(self) -> None:
        """Hold the aborted producer no longer: where this came from knows it, and it is destroyed elsewhere."""
        self.__traceback__ = self.__cause__ = self.__context__ = None


def topics_refusal(error: KafkaError | None) -> Refusal | None:
    """Return what this error of a transaction means whose records have no faults; None where it tells nothing."""
    fault = None if error is None else delivery_fault(error, alone=True)
    if fault is None or fault.fault.fault_class is not FaultClass.TOPIC:
        return None
    return Refusal(fault, is_of_one_topic=True)


def progress_refusal(topic: str, error: KafkaError) -> Refusal | None:
    """Return what this error means where all was acknowledged but the progress record; None where it may pass."""
    if delivery_fault(error, alone=True).fault.fault_class not in (FaultClass.TOPIC, FaultClass.ROW_PERMANENT):
        return None
    text = f"the progress topic {topic} does not take the transaction's record: {error.str()}"
    is_too_large = error.code() in _TOO_LARGE
    return Refusal(DeliveryFault(own_fault("PROGRESS_REFUSED"), text), is_of_one_topic=False, is_too_large=is_too_large)


def halved(part: Attempt, refusal: Refusal) -> list[Attempt]:
    """Return the two halves of it that are tried next, in their order; none where the refusal is one of all of it."""
    records = part.records
    if refusal.is_too_large and len(records) > 1:
        middle = len(records) // 2
        return [part._replace(records=records[:middle]), part._replace(records=records[middle:])]
    topics = list(dict.fromkeys(map(topic_of, records)))
    if not refusal.is_of_one_topic or len(topics) == 1:
        return []
    first = set(topics[: len(topics) // 2])
    return [
        part._replace(records=[record for record in records if (record.topic in first) is is_first])
        for is_first in (True, False)
    ]
