"""What is checked before a row is sent agrees with what Kafka and its client would say."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.policy.rows.headers import Headers
from outboxd.policy.rows.row_checks import (
    BATCH_OVERHEAD_BYTES,
    TIMESTAMP_MS_MAX,
    client_size_bytes,
    lone_batch_size_bytes,
    partition_problem,
    record_size_bytes,
    timestamp_problem,
    topic_name_problem,
)

LEGAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
KEYS = st.none() | st.binary(max_size=300)
PAYLOADS = st.none() | st.binary(max_size=300)
HEADERS: st.SearchStrategy[Headers] = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=70), st.none() | st.binary(max_size=70)
    ),
    max_size=5,
).map(tuple)


@given(topic=st.text(LEGAL, min_size=1, max_size=249).filter(lambda topic: topic not in {".", ".."}))
def test_a_legal_topic_name_has_no_problem(topic: str) -> None:
    assert topic_name_problem(topic) is None


@given(
    topic=st.text(LEGAL, max_size=20), illegal=st.characters(exclude_characters=LEGAL), tail=st.text(LEGAL, max_size=20)
)
def test_one_illegal_character_is_found_wherever_it_stands(topic: str, illegal: str, tail: str) -> None:
    problem = topic_name_problem(topic + illegal + tail)
    assert problem is not None
    assert problem.isprintable()


@pytest.mark.parametrize(
    "topic", ["", ".", "..", "a" * 250, "x" * 5_000_000, "orders\n", "orders ", "a/b", "é", "\0", "\ud800"]
)
def test_an_illegal_topic_name_is_refused_in_few_words(topic: str) -> None:
    problem = topic_name_problem(topic)
    assert problem is not None
    assert len(problem) < 500
    problem.encode("utf-8")


@pytest.mark.parametrize("topic", ["a", "...", "a" * 249, "_internal", "A.b-c_1"])
def test_names_at_the_edge_of_the_rule_are_legal(topic: str) -> None:
    assert topic_name_problem(topic) is None


def test_only_a_negative_partition_is_wrong_in_itself() -> None:
    assert [partition_problem(partition) for partition in (None, 0, 2**31 - 1)] == [None, None, None]
    assert partition_problem(-1) == "the partition is -1; partitions count from 0, and null lets the key decide"


def varint(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 127:
        out.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*out, zigzag])


def field(part: bytes | None) -> bytes:
    return varint(-1) if part is None else varint(len(part)) + part


def record_of_format_v2(key: bytes | None, payload: bytes | None, headers: Headers) -> bytes:
    body = bytes(1) + varint(0) + varint(0) + field(key) + field(payload) + varint(len(headers))
    body += b"".join(field(name.encode()) + field(value) for name, value in headers)
    return varint(len(body)) + body


@given(key=KEYS, payload=PAYLOADS, headers=HEADERS)
def test_the_size_is_that_of_the_record_encoded_in_format_v2(
    key: bytes | None, payload: bytes | None, headers: Headers
) -> None:
    encoded = record_of_format_v2(key, payload, headers)
    assert record_size_bytes(key, payload, headers) == len(encoded)
    assert lone_batch_size_bytes(key, payload, headers) == BATCH_OVERHEAD_BYTES + len(encoded)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 8191, 8192, 1_048_575, 1_048_576, 5_000_000])
def test_the_size_is_exact_where_a_length_takes_one_byte_more(length: int) -> None:
    part = bytes(length)
    assert record_size_bytes(part, part, ()) == len(record_of_format_v2(part, part, ()))


@given(key=st.text(st.characters(), max_size=40))
def test_a_text_key_counts_in_utf_8_even_where_it_cannot_be_sent(key: str) -> None:
    assert record_size_bytes(key, None, ()) == record_size_bytes(key.encode("utf-8", "surrogatepass"), None, ())


@pytest.fixture(scope="module")
def producer_of_2000_bytes() -> Producer:
    return Producer({"bootstrap.servers": "localhost:1", "message.max.bytes": 2000, "log_level": 0})


@settings(max_examples=50)
@given(key=KEYS, headers=HEADERS)
def test_the_clients_own_limit_is_met_to_the_byte(
    producer_of_2000_bytes: Producer, key: bytes | None, headers: Headers
) -> None:
    payload = bytes(2000 - client_size_bytes(key, b"", headers))
    assert client_size_bytes(key, payload, headers) == 2000
    producer_of_2000_bytes.produce("t", payload, key=key, headers=list(headers))
    with pytest.raises(KafkaException) as refusal:
        producer_of_2000_bytes.produce("t", payload + b"x", key=key, headers=list(headers))
    assert refusal.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    producer_of_2000_bytes.purge()
    producer_of_2000_bytes.poll(0)


@given(created=st.integers(max_value=-1) | st.integers(min_value=TIMESTAMP_MS_MAX + 1))
def test_a_time_that_kafka_cannot_express_is_refused(created: int) -> None:
    problem = timestamp_problem(created)
    assert problem is not None
    assert problem.startswith("created_at ")
