"""What a process that tries suspects of a crash sends them with. Called in that process, by name.

It loads nothing else of a daemon: everything waits for its start, with exactly-once delivery, and the libraries of the
database and of the configuration would take four fifths of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.trials.child import LonePublisher
from outboxd.kafka.trials.lone_transactions import LoneTransactions
from outboxd.policy.exchange.messages import Event

Decorate = Callable[[Any], Any]
"""Returns the broker's port with something around it, as the daemon's own may have."""


def lone_publisher(properties: Mapping[str, str], *, source: str, decorate: Decorate | None) -> LonePublisher:
    """Return the broker's port for at-least-once delivery."""
    publisher = KafkaPublisher(properties, source=source, in_flight_rows_max=1, in_flight_bytes_max=0)
    decorated: LonePublisher = _decorated(publisher, decorate)
    return decorated


def lone_transactions(
    properties: Mapping[str, str],
    *,
    source: str,
    schema: str,
    decorate: Decorate | None,
    database: str,
    settled: int,
    lineage: str,
) -> LoneTransactions:
    """Return what sends with exactly-once delivery, once all others are fenced."""
    events: SimpleQueue[Event] = SimpleQueue()
    publisher = TransactionalPublisher(properties, events.put, source=source, schema=schema)
    publisher.name_after(database)
    return LoneTransactions(_decorated(publisher, decorate), events, settled=settled, lineage=lineage)


def _decorated(publisher: Any, decorate: Decorate | None) -> Any:
    return publisher if decorate is None else decorate(publisher)
