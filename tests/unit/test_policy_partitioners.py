"""Where a key goes; what the client itself does is in the integration tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.topics.partitioners import Placement, murmur2

CERTAIN = ["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"]


@pytest.mark.parametrize(
    ("key", "hashed"),
    # What Kafka's own `UtilsTest.testMurmur2` expects; the sign is taken away before the partition is chosen.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"abc", 479470107),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
    ],
)
def test_murmur2_is_that_of_the_java_client(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0x7FFFFFFF


@given(st.text(), st.integers(1, 1_000), st.sampled_from(CERTAIN))
def test_each_key_goes_to_one_partition_of_the_topic(key: str, partitions: int, partitioner: str) -> None:
    partition = Placement(partitioner, partitions).partition_of(key)
    assert partition is not None
    assert 0 <= partition < partitions
    assert Placement(partitioner, partitions).partition_of(key) == partition


@pytest.mark.parametrize(
    ("partitioner", "key", "partitions"),
    [("consistent_random", None, 3), ("random", "k", 3), ("of another client", "k", 3), ("consistent", "k", 0)],
)
def test_nothing_is_foretold_where_the_client_may_take_any_partition(
    partitioner: str, key: str | None, partitions: int
) -> None:
    assert Placement(partitioner, partitions).partition_of(key) is None
