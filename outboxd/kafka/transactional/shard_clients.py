"""The clients of a shard with exactly-once delivery: its producers, the reader of its progress, and one that only asks.

A shard is one outbox of one database. Its names in Kafka are made of theirs, so that two daemons of one outbox fence
each other and read each other's progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from outboxd.kafka.client.client_config import DEFAULTS, UNREAD, transaction_timeout_ms, transactional_config
from outboxd.kafka.client.cluster_failure import ClusterFailure
from outboxd.kafka.transactional.progress import ProgressRecord, progress_topic, transactional_id
from outboxd.kafka.transactional.progress_log import ensure_topic, read_above
from outboxd.kafka.transactional.verdicts import Way


class ShardClients:
    """Makes them with the properties and names of the present. May be called on any thread."""

    def __init__(self, properties: Mapping[str, str], *, source: str, schema: str, rows_max: int) -> None:
        """Make nothing that speaks to a broker yet.

        Args:
            properties: the user's librdkafka properties.
            source: the outbox's name.
            schema: that of outboxd's tables.
            rows_max: the most rows of one transaction.
        """
        self.properties: Mapping[str, str] = dict(properties)
        self.transactional_id = ""
        self.topic = ""
        """The progress topic."""
        self.failure = ClusterFailure()
        """Why no broker answers."""
        self._outbox, self._schema = source, schema
        self._rows_max = rows_max
        self._admin: AdminClient | None = None

    def name_after(self, database: str) -> None:
        """Take the database's own name for it, before anything is made.

        A configured name may be a pooler's: two daemons on two ways to one database have to fence each other.
        """
        self.transactional_id = transactional_id(database, self._schema, self._outbox)
        self.topic = progress_topic(database, self._schema, self._outbox)

    def take_properties(self, properties: Mapping[str, str]) -> None:
        """Make the next ones with these."""
        self.properties = dict(properties)
        self._admin = None

    # Producers.

    @property
    def timeout_ms(self) -> int:
        """How long a transaction may be open, in milliseconds."""
        return transaction_timeout_ms(self.properties)

    def make_producer(self, way: Way) -> Producer:
        """Return a producer of the shard's `transactional.id`; its init will fence all before it."""
        config = transactional_config(
            self.properties,
            transactional_id=self.transactional_id,
            timeout_ms=self.timeout_ms,
            rows_max=self._rows_max,
            is_lone=way is Way.LONE,
        )
        return Producer({**config, "error_cb": self.failure.note, "logger": self.failure})

    # The progress topic.

    def read_above(self, number: int, lineage: str) -> Sequence[ProgressRecord]:
        """Return the committed progress records above a number, see `progress_log.read_above`."""
        return read_above(self.properties, self.topic, number, lineage)

    def ensure_topic(self) -> None:
        """Make the progress topic where it is missing."""
        ensure_topic(self.properties, self.topic)

    # One that only asks.

    def contact(self, timeout_seconds: float) -> str | None:
        """Return the cluster's id, if it has one, asked by a client that takes part in no transaction. Raises
        KafkaException when no broker answers in time.
        """
        admin = self._admin or self._make_admin()
        self._admin = admin
        try:
            metadata = admin.list_topics(timeout=timeout_seconds)
        except KafkaException:
            # The producer says nothing while it begins, which it cannot do now.
            admin.poll(0)
            self.failure.unanswered(self.properties.get("bootstrap.servers", ""), 0.0)
            raise
        admin.poll(0)
        self.failure.clear()
        return metadata.cluster_id

    def _make_admin(self) -> AdminClient:
        own: dict[str, Any] = {"client.id": "outboxd-contact", "error_cb": self.failure.note, "logger": self.failure}
        return AdminClient({**DEFAULTS, **self.properties, **UNREAD, **own})
