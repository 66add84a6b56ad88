"""librdkafka's mock cluster with its fault injection, reached through ctypes in the client's own shared library.

    with MockCluster() as mock:
        mock.create_topic("orders", partitions=2)
        mock.push_produce_errors([KafkaError.NOT_LEADER_FOR_PARTITION])
        producer = Producer({"bootstrap.servers": mock.bootstrap})

Any error code can be answered to any request; a real broker gives the causes, this gives the codes. What it cannot do
stands in `outboxd.kafka.embedded`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka

_PRODUCER = 0
_PRODUCE_REQUEST = 0
_POINTER, _TEXT, _INT, _INT16, _INT32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int16, ctypes.c_int32


def _library() -> ctypes.CDLL:
    """Return the librdkafka that the installed wheel brings, with the mock functions declared."""
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(beside.glob("librdkafka*.so*"))
    if not found:
        raise RuntimeError(f"no librdkafka in {beside}: confluent-kafka was not installed from a wheel")
    library = ctypes.CDLL(str(found[0]))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_new": (_POINTER, [_INT, _POINTER, _TEXT, ctypes.c_size_t]),
        "rd_kafka_conf_new": (_POINTER, []),
        "rd_kafka_conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [_POINTER]),
        "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, _INT]),
        "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
        "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_POINTER]),
        "rd_kafka_mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
        "rd_kafka_mock_topic_set_error": (None, [_POINTER, _TEXT, _INT]),
        "rd_kafka_mock_partition_set_leader": (_INT, [_POINTER, _TEXT, _INT32, _INT32]),
        "rd_kafka_mock_push_request_errors_array": (None, [_POINTER, _INT16, ctypes.c_size_t, ctypes.POINTER(_INT)]),
        "rd_kafka_mock_clear_request_errors": (None, [_POINTER, _INT16]),
        "rd_kafka_mock_broker_set_down": (_INT, [_POINTER, _INT32]),
        "rd_kafka_mock_broker_set_up": (_INT, [_POINTER, _INT32]),
        "rd_kafka_mock_broker_set_rtt": (_INT, [_POINTER, _INT32, _INT]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """Mock brokers, numbered from 1, on free loopback ports, until `close()`."""

    def __init__(self, brokers: int = 1) -> None:
        self._library = _library()
        reason = ctypes.create_string_buffer(512)
        settings = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(settings, b"log_level", b"0", reason, len(reason))
        self._owner: int | None = self._library.rd_kafka_new(_PRODUCER, settings, reason, len(reason))
        if self._owner is None:
            raise RuntimeError(f"librdkafka made no client: {reason.value.decode()}")
        self._cluster: int | None = self._library.rd_kafka_mock_cluster_new(self._owner, brokers)
        if self._cluster is None:
            raise RuntimeError("librdkafka made no mock cluster")

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers, as `bootstrap.servers` takes them."""
        addresses: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return addresses.decode()

    def create_topic(self, topic: str, partitions: int = 3, replication: int = 1) -> str:
        """Create a topic with as many partitions as asked; return its name."""
        self._check(
            self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, replication), topic
        )
        return topic

    def push_produce_errors(self, codes: Sequence[int]) -> None:
        """Answer the next Produce requests with these codes in turn, one code a request; 0 lets one pass.

        After a code on which the client itself sends the same again (7, say), a record may be reported as delivered,
        without an offset, that the mock never kept: the client takes a later batch's success for the earlier's, and the
        mock, unlike a broker, does not refuse the later one for the gap in its numbers.
        """
        self.push_errors(_PRODUCE_REQUEST, codes)

    def push_errors(self, request: int, codes: Sequence[int]) -> None:
        """Answer the next requests of that kind (the protocol's API key) with these codes, one code a request."""
        errors = (_INT * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(codes), errors)

    def clear_produce_errors(self) -> None:
        """Forget the codes that no Produce request has taken yet."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, _PRODUCE_REQUEST)

    def topic_error(self, topic: str, code: int) -> None:
        """Answer whatever concerns `topic` (its metadata first of all) with `code`; 0 heals it."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make `broker` lead the partition; -1 leaves it without a leader."""
        status = self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker)
        self._check(status, f"{topic}[{partition}]")

    def set_down(self, broker: int = 1) -> None:
        """Close the broker's connections and refuse new ones."""
        self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker), f"broker {broker}")

    def set_up(self, broker: int = 1) -> None:
        """Undo `set_down`."""
        self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker), f"broker {broker}")

    def rtt(self, rtt_ms: int, broker: int = 1) -> None:
        """Answer each request to `broker` `rtt_ms` late."""
        self._check(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, rtt_ms), f"broker {broker}")

    def close(self) -> None:
        """Stop the brokers and forget every record. Safe to call twice."""
        if self._cluster is not None:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._owner is not None:
            self._library.rd_kafka_destroy(self._owner)
            self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status != 0:
            raise RuntimeError(f"the mock cluster refused {what}: {confluent_kafka.KafkaError(status).name()}")
