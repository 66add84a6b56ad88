"""Does the topic have the partition that a row names? Only fresh metadata of the topic can tell."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.policy.faults import own_fault
from outboxd.policy.messages import DeliveryFault
from outboxd.policy.records import Record

METADATA_SECONDS = 10.0
PARTITION_CODES = (KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART)
"""What the client says of a partition that is not there, and of a topic that is not (yet) there."""


def partition_fault(producer: Producer, record: Record) -> DeliveryFault | None:
    """Return the record's own fault when its topic is there and lacks its partition; None when that is not proved.

    Blocks for up to `METADATA_SECONDS`.
    """
    try:
        topic = producer.list_topics(record.topic, timeout=METADATA_SECONDS).topics.get(record.topic)
    except KafkaException:
        return None  # No answer is no proof: the fault stays the topic's.
    if topic is None or topic.error is not None or record.partition is None:
        return None
    count = len(topic.partitions)
    if record.partition < count:
        return None
    text = f"the topic has partitions 0 to {count - 1}, the row names {record.partition}"
    return DeliveryFault(own_fault("UNKNOWN_PARTITION"), text)
