"""From a record to what `produce()` takes, or why it cannot be sent.

A poison record that is found here reaches no batch that it would spoil for others. Two checks are vital: a lone
surrogate in a header's name ends the whole process inside the client, and a NUL cuts the name.
"""

from __future__ import annotations

from typing import Any

import orjson

from outboxd.kafka.client.client_config import ANY_PARTITION
from outboxd.policy.exchange.messages import DeliveryFault
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.headers import InvalidHeaders, parse_headers
from outboxd.policy.rows.records import WITHHELD, Record
from outboxd.policy.rows.row_checks import (
    TIMESTAMP_MS_MAX,
    client_size_bytes,
    partition_problem,
    timestamp_problem,
    topic_name_problem,
)

TOPICS_REMEMBERED_MAX = 10_000

KafkaHeaders = list[tuple[str, Any]]


class MessageChecks:
    """Checks and headers of one outbox's records."""

    def __init__(self, source: str, record_bytes_max: int, empty_key_partition: int = ANY_PARTITION) -> None:
        """`source` goes into every record's `outbox-source`; `record_bytes_max` is the client's limit;
        `empty_key_partition` is where records with an empty key go.
        """
        self.source_header = ("outbox-source", source.encode())
        self.record_bytes_max = record_bytes_max
        self.empty_key_partition = empty_key_partition
        self._topics: dict[str, DeliveryFault | None] = {}

    def partition_of(self, record: Record) -> int:
        """Return what `produce()` is to be told: the application's choice, or whose it is."""
        if record[7] is not None:
            return record[7]
        return self.empty_key_partition if record[4] == "" else ANY_PARTITION

    def topic_fault(self, topic: str) -> DeliveryFault | None:
        """Return why the topic's name is illegal, or None; remembered, since a batch has few topics."""
        try:
            return self._topics[topic]
        except KeyError:
            problem = topic_name_problem(topic)
            fault = None if problem is None else DeliveryFault(own_fault("INVALID_TOPIC"), problem)
            if len(self._topics) >= TOPICS_REMEMBERED_MAX:
                self._topics.clear()
            self._topics[topic] = fault
            return fault

    def headers(self, record: Record) -> KafkaHeaders | DeliveryFault:
        """Return the application's headers and ours, or what is wrong with them."""
        own: KafkaHeaders = [("outbox-id", str(record[1])), ("outbox-event-id", record[2]), self.source_header]
        if record[6] == "{}":
            return own
        if record[6] == WITHHELD:
            # The store's own count is all there is.
            return self._too_large(record.size_bytes)
        parsed = parse_headers(record.headers, orjson.loads)
        if isinstance(parsed, InvalidHeaders):
            return DeliveryFault(own_fault(parsed.fault_name), parsed.reason)
        return [*parsed, *own]

    def fault_of(self, record: Record) -> DeliveryFault | None:
        """Return why the record cannot be sent, or None: all checks, where no hot path takes them apart."""
        headers = None if record[6] == "{}" else self.headers(record)
        if isinstance(headers, DeliveryFault):
            return headers
        topic_fault = self.topic_fault(record[3])
        if topic_fault is not None:
            return topic_fault
        is_plain = record[7] is None and 0 < record[8] <= TIMESTAMP_MS_MAX and record[9] * 2 <= self.record_bytes_max
        return None if is_plain else self.fault_of_record(record)

    def fault_of_record(self, record: Record) -> DeliveryFault | None:
        """Check what the hot path does not: partition, timestamp and exact size. Called for records that look
        unusual.
        """
        problem = partition_problem(record.partition)
        if problem is not None:
            return DeliveryFault(own_fault("UNKNOWN_PARTITION"), problem)
        problem = timestamp_problem(record.created_at_ms)
        if problem is not None:
            return DeliveryFault(own_fault("INVALID_TIMESTAMP"), problem)
        return self._size_fault(record)

    def _size_fault(self, record: Record) -> DeliveryFault | None:
        """Return that it is too large, or what is wrong with its headers, whose size counts."""
        if record.size_bytes <= self.record_bytes_max // 2:
            return None
        headers = self.headers(record)
        if isinstance(headers, DeliveryFault):
            return headers
        wire_headers = tuple((name, value.encode() if isinstance(value, str) else value) for name, value in headers)
        size_bytes = client_size_bytes(record.key, record.payload, wire_headers)
        # Of a payload that is far too large the store ships the beginning only.
        return self._too_large(max(size_bytes, record.size_bytes)) if size_bytes > self.record_bytes_max else None

    def _too_large(self, size_bytes: int) -> DeliveryFault:
        text = f"the record has {size_bytes} bytes, the client's message.max.bytes is {self.record_bytes_max}"
        return DeliveryFault(own_fault("MSG_SIZE_TOO_LARGE"), text)
