"""The inbox of delivery reports, and records that are their own delivery callback.

The client calls one Python object for each record. Measured on five thousand rows at a time, the cheapest object
that still knows its row is the row itself: a tuple with `__call__`. It only appends to a list: no lock, no I/O,
nothing that can raise.
"""

from __future__ import annotations

from typing import Literal

from confluent_kafka import KafkaError, Message

from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of, fault_of_refusal
from outboxd.policy.rows.records import Record


class Inbox:
    """Reports in the order in which the client gave them, until the relay takes them. Those of chains are kept apart:
    another producer reports them, so that the places that both tell of one partition are in no order.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._reports: list[Report] = []
        self.put = self._reports.append
        self._chained: list[Report] = []
        self.chain_failures: list[Report] = []
        """Of records that went by `in_chain`: they are no outcome of the record, which goes again by itself."""
        self.record_type = _record_type(self._reports, self._chained, self.chain_failures)

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def has_failures(self) -> bool:
        """Whether a report of a failure is there."""
        return any(report[1] is not None for report in self._reports[:])

    def take(self) -> list[Report]:
        """Return what is there of all but chains, and keep it no longer."""
        taken = self._reports[:]
        # Only what was copied is removed: another thread may append meanwhile.
        del self._reports[: len(taken)]
        return taken

    def take_chained(self) -> list[Report]:
        """Return what was delivered in chains, and keep it no longer. On the thread that serves the callbacks."""
        taken = self._chained[:]
        self._chained.clear()
        return taken


def delivery_fault(error: KafkaError, *, alone: bool) -> DeliveryFault:
    """Return what the client's error means. `alone`: no other record shared the verdict."""
    return DeliveryFault(fault_of(error.code(), error.name(), error.str(), alone=alone), error.str())


def refusal_fault(error: TypeError | ValueError) -> DeliveryFault:
    """Return what it means that `produce()` did not take a record at all."""
    kind: Literal["type", "value", "unicode"] = "type" if isinstance(error, TypeError) else "value"
    if isinstance(error, UnicodeError):
        kind = "unicode"
    return DeliveryFault(fault_of_refusal(kind, str(error)), str(error))


def _record_type(reports: list[Report], chained: list[Report], chain_failures: list[Report]) -> type[Record]:
    append, append_chained = reports.append, chained.append
    new_tuple = tuple.__new__

    class ReportingRecord(Record):
        """A record whose delivery report lands in this inbox."""

        __slots__ = ()

        def __call__(self, error: KafkaError | None, message: Message) -> None:
            if error is None:
                append(new_tuple(Report, (self, None, message.partition(), message.offset(), False)))
            else:
                append(Report(self, delivery_fault(error, alone=False), message.partition(), None, False))

        def in_chain(self, error: KafkaError | None, message: Message) -> None:
            if error is None:
                append_chained(new_tuple(Report, (self, None, message.partition(), message.offset(), False)))
            else:
                chain_failures.append(Report(self, delivery_fault(error, alone=False), message.partition(), None))

    return ReportingRecord
