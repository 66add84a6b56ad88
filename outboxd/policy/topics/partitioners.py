"""Partitioners: to which partition librdkafka gives a key. Pure; what is not known for sure is None.

The client alone places records. This foretells where, for when one partition of a topic is stuck and the others are
not: a wrong guess makes a key wait that might go, or lets one go to where it gets stuck, and changes no record's place.
The names are those of librdkafka's property `partitioner` (its CONFIGURATION.md; `rdkafka_msg.c` has the arithmetic).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

DEFAULT_PARTITIONER: Final = "consistent_random"
_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Placement:
    """How the records of one topic are placed: the value of `partitioner`, and how many `partitions` it has."""

    partitioner: str
    partitions: int

    def partition_of(self, key: str | None) -> int | None:
        """Return the partition of a key; None where the client may take any, or is not known to take a certain one."""
        hash_of = _HASHES.get(self.partitioner)
        if key is None or hash_of is None or self.partitions < 1:
            return None
        return hash_of(key.encode()) % self.partitions

    def place_of(self, key: str | None, partition: int | None) -> int | None:
        """Return the partition of a record of this key: the one that it names, if it does."""
        return self.partition_of(key) if partition is None else partition


def murmur2(data: bytes) -> int:
    """Return Java's hash of a key, without its sign (`org.apache.kafka.common.utils.Utils`)."""
    multiplier, shift = 0x5BD1E995, 24
    length = len(data)
    result = 0x9747B28C ^ length
    for start in range(0, length - 3, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & _MASK
        word = (word ^ word >> shift) * multiplier & _MASK
        result = result * multiplier & _MASK ^ word
    rest = data[length & ~3 :]
    if rest:
        result = (result ^ int.from_bytes(rest, "little")) * multiplier & _MASK
    result = (result ^ result >> 13) * multiplier & _MASK
    return (result ^ result >> 15) & 0x7FFFFFFF


def fnv1a(data: bytes) -> int:
    """Return the hash that Sarama, the Go client, takes: FNV-1a, and of that as a signed number the absolute value."""
    result = 0x811C9DC5
    for byte in data:
        result = (result ^ byte) * 0x01000193 & _MASK
    return _MASK + 1 - result if result & 0x80000000 else result


_HASHES: Mapping[str, Callable[[bytes], int]] = MappingProxyType(
    {
        "consistent": zlib.crc32,
        "consistent_random": zlib.crc32,
        "murmur2": murmur2,
        "murmur2_random": murmur2,
        "fnv1a": fnv1a,
        "fnv1a_random": fnv1a,
    }
)
