"""Where the client really places keys, by each partitioner whose choice is foretold."""

from __future__ import annotations

import random
from typing import Any

import pytest
from confluent_kafka import Producer

from outboxd.kafka.client.client_config import CLIENT_LOGGER
from outboxd.policy.topics.partitioners import Placement
from tests.support.mock_broker import MockCluster

PARTITIONS = 7


def some_keys() -> list[str]:
    """Return keys of all lengths, of one to three bytes a character."""
    dice = random.Random(11)
    ranges = ((0x20, 0x7F), (0xA1, 0x17F), (0x4E00, 0x9FFF))
    return [
        "".join(chr(dice.randrange(*dice.choice(ranges))) for _ in range(length))
        for length in range(1, 30)
        for _ in range(20)
    ]


@pytest.mark.parametrize(
    "partitioner", ["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"]
)
def test_a_key_goes_where_it_is_foretold_to(partitioner: str) -> None:
    with MockCluster() as mock:
        mock.create_topic("orders", partitions=PARTITIONS)
        properties = {"bootstrap.servers": mock.bootstrap, "partitioner": partitioner, "log_level": 0}
        producer = Producer(properties, logger=CLIENT_LOGGER)
        placed: dict[str, int] = {}

        def delivered(error: Any, message: Any) -> None:
            assert error is None
            placed[message.key().decode()] = message.partition()

        for key in some_keys():
            producer.produce("orders", b"", key, on_delivery=delivered)
        assert producer.flush(30) == 0

        placement = Placement(partitioner, PARTITIONS)
        assert placed == {key: placement.partition_of(key) for key in some_keys()}
        assert len(set(placed.values())) == PARTITIONS
