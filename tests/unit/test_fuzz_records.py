"""Whatever an application writes into a row: the client takes the record, or the row dies in words; never an exception.

The real client is there without any broker: what it takes waits in its queue and is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.policy.blame.cause import cause
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Record


class LongText(str):
    """A text that is shown short when a test fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"LongText({self[:4]!r} … {len(self)})"


class LongBytes(bytes):
    """Bytes that are shown short when a test fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"LongBytes({self[:4]!r} … {len(self)})"


# What PostgreSQL can store, and beyond: the column's type protects today, another table may not.
TEXTS = st.text(st.characters(), max_size=30)
TOPICS = st.one_of(
    st.sampled_from(
        ["orders", "", ".", "..", "a" * 249, "a" * 250, "a/b", "é", "a\0b", "\ud800", "a b", "__consumer_offsets"]
    ),
    TEXTS,
)
KEYS = st.none() | st.just("") | TEXTS | st.just(LongText("k" * 1_000_000))
PAYLOADS = st.one_of(
    st.none(),
    st.binary(max_size=50),
    st.sampled_from([b"", b"\0", *(LongBytes(b"x" * size) for size in (999_000, 1_000_001, 3_000_000))]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.one_of(
    st.just("{}"),
    st.dictionaries(TEXTS, TEXTS | st.none(), max_size=4).map(json.dumps),
    st.lists(st.tuples(TEXTS, TEXTS | st.none()), max_size=4).map(json.dumps),
    JSON.map(json.dumps),
    TEXTS,
    st.sampled_from(
        [
            LongText("[" * 100_000),
            LongText('{"a":' * 100_000),
            '{"outbox-id": "1"}',
            '{"\\ud800": "x"}',
            '{"a\\u0000b": "x"}',
        ]
    ),
)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else bytes(value) if isinstance(value, bytes) else value


QUICK = settings(max_examples=200, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def publisher() -> Iterator[KafkaPublisher]:
    properties = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}
    publisher = KafkaPublisher(properties, source="shop", in_flight_rows_max=10_000, in_flight_bytes_max=64 << 20)
    yield publisher
    publisher.purge()
    publisher.close()


def record_of(row: dict[str, Any], kind: type[Record] = Record) -> Record:
    """The row as the store hands it over."""
    plain = {name: _plain(value) for name, value in row.items()}
    key_bytes = (row["key"] or "").encode("utf-8", "surrogatepass")
    size_bytes = len(key_bytes) + len(row["payload"] or b"") + len(row["headers"])
    return kind(arm=6, id=7, event_id="event-id", **plain, size_bytes=size_bytes)


def sent(publisher: KafkaPublisher, row: dict[str, Any]) -> list[Report]:
    """Give one record to the client; return what it refused, at once."""
    publisher.purge()
    publisher.poll(0)
    publisher.take_reports()
    assert publisher.publish([record_of(row, publisher.inbox.record_type)], 0) == 1
    return [report for report in publisher.take_reports() if report.record.id == 7]


@QUICK
@given(
    row=st.fixed_dictionaries(
        {
            "topic": TOPICS,
            "key": KEYS,
            "payload": PAYLOADS,
            "headers": HEADERS,
            "partition": st.none() | st.integers(-(2**31), 2**31 - 1),
            "created_at_ms": st.integers(-(2**63), 2**63 - 1),
        }
    )
)
@example(row={"topic": "t", "key": "\ud800", "payload": b"", "headers": "{}", "partition": None, "created_at_ms": 1})
@example(row={"topic": "t", "key": "a\0b", "payload": None, "headers": "{}", "partition": None, "created_at_ms": 1})
@example(
    row={"topic": "t", "key": None, "payload": b"", "headers": '{"\\ud800": ""}', "partition": None, "created_at_ms": 1}
)
@example(
    row={"topic": "t", "key": None, "payload": b"", "headers": '[["a\\u0000", ""]]', "partition": 0, "created_at_ms": 1}
)
def test_any_row_is_taken_or_refused_in_words(publisher: KafkaPublisher, row: dict[str, Any]) -> None:
    for report in sent(publisher, row):
        error = report.error
        assert error is not None
        told = cause(error.fault, error.text, row["topic"])
        assert "\0" not in told
        assert "\n" not in told
        told.encode()
        assert len(told) <= 2_000


@QUICK
@given(topic=TOPICS, key=KEYS, payload=PAYLOADS, headers=HEADERS)
def test_what_the_checks_let_pass_the_client_takes(
    publisher: KafkaPublisher, topic: str, key: str | None, payload: bytes | None, headers: str
) -> None:
    # A text of PostgreSQL's has no half of a surrogate pair: only the client itself looks for one in a key.
    assume(key is None or key.encode(errors="ignore").decode() == key)
    row = {"topic": topic, "key": key, "payload": payload, "headers": headers, "partition": None, "created_at_ms": 1}
    if MessageChecks("shop", 1_000_000).fault_of(record_of(row)) is None:
        assert sent(publisher, row) == []
