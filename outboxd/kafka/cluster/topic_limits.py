"""What a topic refuses, as far as the cluster tells: its size limit, and whether it is compacted; how many partitions
it has; and whether there is one of that name.

Asked on a thread of its own when a topic is first met, and again every few minutes, or twice a minute where it is
missing. What a topic refuses only decides *how* a record is sent: one that it is likely to refuse goes in a batch of
its own, where it spoils nothing for others. The broker has the last word; where it does not tell (an ACL, an old
broker), all records go by the batch as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicMetadata

from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.client_config import partitioner_of, silent
from outboxd.kafka.client.codes import NO_TOPIC
from outboxd.kafka.client.kept_admin import KeptAdmin
from outboxd.kafka.client.lots import Lots
from outboxd.kafka.cluster.partitions import MostPartitions
from outboxd.policy.rows.headers import InvalidHeaders, parse_headers
from outboxd.policy.rows.records import Record
from outboxd.policy.rows.row_checks import lone_batch_size_bytes
from outboxd.policy.topics.partitioners import Placement

ASK_SECONDS_MAX = 10.0
REFRESH_SECONDS = 300.0
MISSING_SECONDS = 30.0
"""So long after it was asked for a topic that is missing is asked for again."""
TOPICS_REMEMBERED_MAX = 10_000
OWN_HEADERS_BYTES: Final = 256
"""More than the three headers that outboxd adds ever take, but for a very long outbox name."""
ANY_KEY: Final = object()
"""No key is this: so one comparison serves topics that need a key and those that do not."""


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """What one topic refuses.

    Attributes:
        look_above_bytes: records of at most so many bytes need no closer look.
        batch_bytes_max: `max.message.bytes`; None where it is unknown or compression decides.
        lacking_key: what a key must not be: None in a compacted topic, else something that no key is.
        asked_at: monotonic seconds.
    """

    look_above_bytes: int
    batch_bytes_max: int | None = None
    lacking_key: object = ANY_KEY
    asked_at: float = float("-inf")

    def may_refuse(self, record: Record) -> bool:
        """Say whether the broker is likely to refuse this record, and whatever shares its batch with it."""
        if record.key is self.lacking_key:
            return True
        if self.batch_bytes_max is None or record.size_bytes <= self.look_above_bytes:
            return False
        headers = parse_headers(record.headers, orjson.loads)
        if isinstance(headers, InvalidHeaders):
            return False
        size_bytes = lone_batch_size_bytes(record.key, record.payload, headers) + OWN_HEADERS_BYTES
        return size_bytes > self.batch_bytes_max


NO_LIMITS: Final = TopicLimits(0)


class KnownTopics:
    """The limits of the topics that were met. `of` is for the hot path: it never waits."""

    def __init__(self, properties: Callable[[], Mapping[str, str]], record_bytes_max: int) -> None:
        """`properties` returns the user's present ones; `record_bytes_max` is the client's own limit."""
        self._properties = properties
        self._unknown = TopicLimits(record_bytes_max // 2)
        self._known: dict[str, TopicLimits] = {}
        self._partitions: dict[str, int] = {}
        self._missing: set[str] = set()
        self._admin = KeptAdmin(properties, "topics")
        self.most_partitions = MostPartitions()
        # Without an answer batches are only a little less clean.
        self._lots: Lots[str] = Lots("topic-limits", self._ask_all, may_wait=True)

    @property
    def is_asking(self) -> bool:
        """Whether an answer of the cluster is waited for."""
        return self._lots.is_busy

    def of(self, topic: str) -> TopicLimits:
        """Return what is known of the topic now; at the first time it is asked for."""
        limits = self._known.get(topic)
        if limits is None:
            if len(self._known) >= TOPICS_REMEMBERED_MAX:
                self._known.clear()
                self._partitions.clear()
                self._missing.clear()
            limits = self._known[topic] = self._unknown
            self.ask([topic])
        return limits

    def placement(self, topic: str) -> Placement | None:
        """Return how the client places the topic's records, by how many partitions it had when the cluster last told;
        None where it never did.
        """
        partitions = self._partitions.get(topic)
        return None if partitions is None else Placement(partitioner_of(self._properties()), partitions)

    def is_missing(self, topic: str) -> bool:
        """Say whether there was no such topic when the cluster told last."""
        return topic in self._missing

    def misplaced(self, topic: str) -> None:
        """A record of the topic went elsewhere than was foretold: it has other partitions by now."""
        self._partitions.pop(topic, None)
        self.ask([topic])

    def refresh(self, now: float) -> None:
        """Ask again for what is missing, or was asked for long ago; `now` is monotonic seconds."""

        def is_stale(topic: str, limits: TopicLimits) -> bool:
            return now - limits.asked_at >= (MISSING_SECONDS if topic in self._missing else REFRESH_SECONDS)

        self.ask([topic for topic, limits in list(self._known.items()) if is_stale(topic, limits)])
        self._admin.rest()

    def ask(self, topics: list[str]) -> None:
        """Have the cluster asked for these topics; several wishes become one question."""
        self._lots.add(topics)

    def _ask_all(self, topics: list[str]) -> None:
        # Not allowed, not there, not now, or properties that a reload made unfit: without an answer batches are only a
        # little less clean, and stuck partitions are not told apart.
        try:
            self._ask(set(topics))
        except (KafkaException, ValueError):
            self._admin.drop()

    def _ask(self, topics: set[str]) -> None:
        now = time.monotonic()
        self._known.update((topic, replace(self._known.get(topic, self._unknown), asked_at=now)) for topic in topics)
        properties, client = self._properties(), self._admin.client()
        for topic in topics:
            self._take(topic, client.list_topics(topic, timeout=ASK_SECONDS_MAX).topics.get(topic))
        for topic, values in _configs(client, topics - self._missing):
            self._known[topic] = self._limits(values, properties, now)

    def _take(self, topic: str, found: TopicMetadata | None) -> None:
        self._missing.discard(topic)
        error = None if found is None else found.error
        if found is None or error is not None:
            self._partitions.pop(topic, None)
            if error is not None and error.code() in NO_TOPIC:
                self._missing.add(topic)
            return
        self._partitions[topic] = len(found.partitions)
        self.most_partitions.note(topic, len(found.partitions))

    def _limits(self, values: Mapping[str, str | None], properties: Mapping[str, str], now: float) -> TopicLimits:
        compression = properties.get("compression.type") or properties.get("compression.codec") or "none"
        lacking_key = None if "compact" in (values.get("cleanup.policy") or "") else ANY_KEY
        limit = values.get("max.message.bytes")
        if limit is None or compression != "none":
            return TopicLimits(self._unknown.look_above_bytes, None, lacking_key, now)
        batch_bytes_max = int(limit)
        # Records count by their size in the database here; half of the limit is far from what the wire adds to that.
        look_above_bytes = max(0, (batch_bytes_max - OWN_HEADERS_BYTES) // 2)
        return TopicLimits(min(self._unknown.look_above_bytes, look_above_bytes), batch_bytes_max, lacking_key, now)


def topic_configs(
    properties: Mapping[str, str], topics: Iterable[str]
) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Ask the cluster for the settings of topics; give those that it tells, within about ten seconds.

    Args:
        properties: the user's librdkafka properties.
        topics: legal names.
    """
    return _configs(_client(properties), topics)


def _configs(client: AdminClient, topics: Iterable[str]) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    if not resources:
        return
    for resource, future in client.describe_configs(resources, request_timeout=ASK_SECONDS_MAX).items():
        try:
            entries = answer_of(future, ASK_SECONDS_MAX + 1)
        except TimeoutError:
            continue
        if not isinstance(entries, KafkaException):
            yield resource.name, {name: entry.value for name, entry in entries.items()}


def _client(properties: Mapping[str, str]) -> AdminClient:
    return AdminClient({**silent(properties), "client.id": f"{properties.get('client.id', 'outboxd')}-topics"})


def is_compacted(properties: Mapping[str, str], topic: str) -> bool:
    """Ask whether the topic removes records whose key has newer ones; False when the cluster does not tell."""
    return any("compact" in (values.get("cleanup.policy") or "") for _, values in topic_configs(properties, [topic]))
