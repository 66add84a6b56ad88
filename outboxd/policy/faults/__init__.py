"""What a failure means: every code of `KafkaError`, and outboxd's own findings, each with a class, a sentence and a
remedy.

One table in five parts. `local` has the codes that librdkafka makes up itself, `broker` those that a broker answers
to a producer, `foreign` those that belong to consumers, administration and brokers among themselves, `own` what
outboxd finds before it sends or sees around the sending; `kinds` has the types. The delivery report and the exception
that `produce()` raises at once go through the same table, so that one cause has one outcome.

A code that stands nowhere here is `UNLISTED`: tried again, then held, never dead-lettered, since a newer client may
report what this version has not heard of.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from outboxd.policy.faults.broker import BROKER_FAULTS
from outboxd.policy.faults.foreign import FOREIGN_FAULTS
from outboxd.policy.faults.kinds import OWN_CODE_MAX, Fault, FaultClass
from outboxd.policy.faults.local import LOCAL_FAULTS
from outboxd.policy.faults.own import OWN_FAULTS

__all__ = [
    "KAFKA_FAULTS",
    "OWN_CODE_MAX",
    "OWN_FAULTS",
    "Fault",
    "FaultClass",
    "fault_named",
    "fault_of",
    "fault_of_refusal",
    "own_fault",
]

KAFKA_FAULTS: Final = MappingProxyType(
    {fault.code: fault for fault in (*LOCAL_FAULTS, *BROKER_FAULTS, *FOREIGN_FAULTS)},
)
"""Every code of `KafkaError`, by number."""
_KAFKA_FAULTS_BY_NAME: Final = {fault.name: fault for fault in KAFKA_FAULTS.values()}


def fault_of(code: int, name: str = "", text: str = "", *, alone: bool = False) -> Fault:
    """Return what the `KafkaError` with this code means, from a delivery report or from `produce()`.

    `name` and `text` are the error's own; they are used for a code that the table does not list, which gives an
    `UNLISTED` fault. `alone` says that no other record shared the verdict: `produce()` raised it, or the record was
    the only one of its batch. A verdict on a whole batch is then a verdict on the record, so `batch_wide` comes out
    false.
    """
    fault = KAFKA_FAULTS.get(code)
    if fault is None:
        return _unlisted(code, name, text)
    return replace(fault, batch_wide=False) if alone and fault.batch_wide else fault


def own_fault(name: str) -> Fault:
    """Return outboxd's own fault of this name, such as `INVALID_HEADERS`; `KeyError` where there is none."""
    return OWN_FAULTS[name]


def fault_named(name: str) -> Fault | None:
    """Return the fault that a stored `error_code` names, for those who read dead letters; None where it names none."""
    return _KAFKA_FAULTS_BY_NAME.get(name) or OWN_FAULTS.get(name)


def fault_of_refusal(kind: Literal["type", "value", "unicode"], text: str) -> Fault:
    """Return what it means that `produce()` refused its arguments before they reached the client's queue.

    `kind` is the exception: "type" for `TypeError`, "value" for `ValueError` (NUL in the topic), "unicode" for
    `UnicodeEncodeError` (a lone surrogate). `text` is the exception's own: confluent-kafka 2.16 names headers in it,
    and the payload by its position. Where it names no part, the key is the one that the checks before `produce()`
    leave over. `BufferError` is backpressure and no fault; a `KafkaException` has a code and goes to `fault_of(...,
    alone=True)`.
    """
    if "header" in text.lower():
        return OWN_FAULTS["INVALID_HEADERS"]
    if kind == "value":
        return OWN_FAULTS["INVALID_TOPIC"]
    if kind == "type" and "argument 2" in text:
        return OWN_FAULTS["INVALID_PAYLOAD"]
    return OWN_FAULTS["INVALID_KEY"]


def _unlisted(code: int, name: str, text: str) -> Fault:
    shown = name or f"ERR_{code}"
    said = f" The client says: {text}" if text else ""
    return Fault(
        code,
        shown,
        FaultClass.UNLISTED,
        f"The Kafka client reports {shown} ({code}), which this version of outboxd does not know.{said}",
        "Nothing is dead-lettered: the row is tried again and then its topic is held. Look the code up in the release "
        "notes of the installed confluent-kafka, and update outboxd.",
    )
