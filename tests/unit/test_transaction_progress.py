"""Progress records say what was written, whatever it was, and refuse what they never wrote."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.transactional.progress import (
    RESTATING_MAX,
    ROW_BYTES_MAX,
    UNSETTLED_MAX,
    ProgressBody,
    ProgressRecord,
    decode,
    progress_key,
    progress_topic,
    rows_max,
)
from outboxd.kafka.transactional.progress_log import read_above
from outboxd.kafka.transactional.transaction_worker import told
from outboxd.kafka.transactional.transactions import TRANSACTIONS_MAX
from outboxd.policy.exchange.messages import ProgressRow, Report
from outboxd.policy.rows.content import content_piece
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import Arm, Record
from tests.support.mock_broker import MockCluster

SENT = content_piece(Record(Arm.REPLAY, 1, "", "topic", "key", b"", "{}", None, 1, 10))
"""Of what `report_of` reports, whose content is always the same."""


def row_of(*values: int, content: str | None = SENT) -> ProgressRow:
    """What was noted of a row; what was sent, of a replay only."""
    row = ProgressRow._make((*values, None))
    return row._replace(content_piece=content) if row.is_replay else row


BIGINTS = st.integers(-(2**63), 2**63 - 1)
PLACES = (BIGINTS, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.booleans(), BIGINTS)
ROWS = st.builds(row_of, *PLACES)
EARLIER_ROWS = st.builds(row_of, *PLACES, content=st.none() | st.text("0123456789abcdef", min_size=16, max_size=16))
RECORDS = st.builds(ProgressRecord, st.integers(1, 2**63 - 1), st.text(max_size=60), st.lists(ROWS, max_size=200))


def report_of(row: ProgressRow) -> Report:
    arm = Arm.REPLAY if row.is_replay else Arm.FORWARD
    event_id = str(UUID(int=(row.event_piece or 0) % 2**64))
    record = Record(arm, row.outbox_id, event_id, "topic", "key", b"", "{}", None, 1, 10)
    return Report(record, None, row.partition, row.offset)


def encode(record: ProgressRecord, pieces: int = 1) -> bytes:
    """What is written of the record when its reports come in so many parts."""
    body = ProgressBody()
    for part in range(pieces):
        body.add([report_of(row) for row in record.rows[part::pieces]])
    return body.value(record.number, record.lineage)


@given(RECORDS, st.lists(EARLIER_ROWS, max_size=200))
def test_rows_of_earlier_transactions_are_read_behind_its_own(
    record: ProgressRecord, earlier: list[ProgressRow]
) -> None:
    body = ProgressBody()
    body.add([report_of(row) for row in record.rows])
    body.add_restated(earlier)
    assert decode(body.value(record.number, record.lineage)).rows == [*record.rows, *earlier]


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: ProgressRecord) -> None:
    assert decode(encode(record)) == record


@given(RECORDS, st.integers(2, 5))
def test_rows_whose_reports_come_one_after_the_other_are_all_in_the_record(record: ProgressRecord, parts: int) -> None:
    read = decode(encode(record, parts))
    assert read == replace(record, rows=[row for part in range(parts) for row in record.rows[part::parts]])


@given(RECORDS)
def test_of_a_record_that_is_not_wanted_only_number_and_lineage_are_read(record: ProgressRecord) -> None:
    wanted = {(record.number + 1, record.lineage), (record.number, record.lineage + "x")}
    read = decode(encode(record), lambda number, lineage: (number, lineage) in wanted)
    assert read == replace(record, rows=())


@given(RECORDS, st.data())
def test_a_cut_record_is_refused_and_never_read_as_fewer_rows(record: ProgressRecord, data: st.DataObject) -> None:
    value = encode(record)
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    with pytest.raises(Exception) as refused:  # noqa: PT011 - of whatever kind: it is turned into one of ours where it is read
        decode(cut)
    assert not isinstance(refused.value, AssertionError)


@given(RECORDS)
def test_a_record_that_does_not_say_what_its_replays_sent_is_read_and_says_so(record: ProgressRecord) -> None:
    unnoted = replace(record, rows=[row._replace(content_piece=None) for row in record.rows])
    head, _, packed = encode(record).partition(b"\n")
    told = orjson.loads(head)
    told.pop("contents", None)
    assert decode(orjson.dumps(told) + b"\n" + packed) == unnoted


def test_a_record_that_says_it_of_some_replays_only_is_refused() -> None:
    rows = [row_of(1, 0, 1, True, 1), row_of(2, 0, 2, True, 2)]
    value = encode(ProgressRecord(1, "here", rows)).replace(b'"%s",' % SENT.encode(), b"", 1)
    with pytest.raises(ValueError, match="contents of 1 replays instead of 2"):
        decode(value)


def test_a_record_of_another_version_is_refused_by_name() -> None:
    value = encode(ProgressRecord(1, "here", [])).replace(b'"v":2', b'"v":3')
    with pytest.raises(ValueError, match="version 3"):
        decode(value)


@given(RECORDS)
def test_a_record_of_the_first_version_is_read_and_says_that_it_knows_no_events(record: ProgressRecord) -> None:
    head = orjson.dumps({"v": 1, "number": record.number, "lineage": record.lineage, "rows": len(record.rows)})
    body = b"".join([struct.pack(">qiq?", *row[:4]) for row in record.rows])
    read = decode(head + b"\n" + zlib.compress(body))
    assert read == replace(record, rows=[row._replace(event_piece=None, content_piece=None) for row in record.rows])


@given(st.lists(st.uuids()))
def test_an_event_piece_is_one_half_of_the_event_id_laid_over_the_other(event_ids: list[UUID]) -> None:
    pieces = event_pieces([str(event_id) for event_id in event_ids])
    folded = [(event_id.int >> 64) ^ (event_id.int & (2**64 - 1)) for event_id in event_ids]
    assert [piece % 2**64 for piece in pieces] == folded


@pytest.mark.parametrize("wrong", ["1234", "no uuid at all"])
def test_what_is_no_uuid_has_no_piece(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"no UUID|fromhex"):
        event_pieces([wrong])


@settings(max_examples=10)
@given(st.lists(ROWS, min_size=100, max_size=200))
def test_rows_that_are_as_good_as_random_fit_into_the_record_that_the_bound_promises(rows: list[ProgressRow]) -> None:
    limit = ROW_BYTES_MAX * len(rows) + 1024
    assert rows_max(limit) >= len(rows) - 1
    assert len(encode(ProgressRecord(2**62, "1234567890123456789-16384-16400", rows))) <= limit


def test_compaction_leaves_every_record_that_may_be_unsettled() -> None:
    # A batch takes several transactions where rows fail.
    numbers = range(1_000_000, 1_000_000 + TRANSACTIONS_MAX * (UNSETTLED_MAX + RESTATING_MAX))
    assert len({progress_key(number) for number in numbers}) == len(numbers)


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_topic_names_are_legal_and_differ_where_the_outboxes_do(one: str, other: str) -> None:
    names = {progress_topic("db", "schema", outbox) for outbox in (one, other)}
    for name in names:
        assert len(name) <= 249
        assert name.isascii()
    assert len(names) == len({one, other})


def test_what_the_client_says_of_a_recovery_that_fails_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = KafkaException(KafkaError(KafkaError._TIMED_OUT, "Failed to get metadata: Local: Timed out"))

    def list_topics(*_: object, **__: object) -> None:
        raise failed

    consumer = SimpleNamespace(list_topics=list_topics, close=lambda: None)
    monkeypatch.setattr("outboxd.kafka.transactional.progress_log.progress_consumer", lambda _: consumer)
    words = "_TIMED_OUT: Failed to get metadata: Local: Timed out"
    with pytest.raises(BrokerUnavailableError) as caught:
        read_above({}, "progress", 0, "lineage")
    assert told(caught.value) == f"the progress topic progress cannot be read: {words}"
    assert told(failed) == words


def test_a_progress_topic_without_a_leader_is_told_so() -> None:
    with MockCluster() as mock:
        mock.create_topic("progress", partitions=1)
        mock.set_leader("progress", 0, -1)
        with pytest.raises(BrokerUnavailableError, match="progress cannot be read: its partition has no leader; start"):
            read_above({"bootstrap.servers": mock.bootstrap}, "progress", 0, "lineage")


def message_of(offset: int, value: bytes | None, code: int | None = None) -> SimpleNamespace:
    error = None if code is None else KafkaError(code)
    return SimpleNamespace(error=lambda: error, offset=lambda: offset, value=lambda: value)


def test_a_replica_that_lags_says_that_the_topic_ends_and_is_read_on_to_its_true_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early, last = (ProgressRecord(number, "lineage", []) for number in (1, 2))
    # Each record is followed by its transaction's marker.
    messages = [
        message_of(0, encode(early)),
        message_of(2, None, KafkaError._PARTITION_EOF),
        message_of(2, encode(last)),
        message_of(4, None, KafkaError._PARTITION_EOF),
    ]
    topics: dict[str, Any] = {"progress": SimpleNamespace(error=None)}
    consumer = SimpleNamespace(
        list_topics=lambda *_, **__: SimpleNamespace(topics=topics),
        get_watermark_offsets=lambda *_, **__: (0, 4),
        assign=lambda _: None,
        poll=lambda _: messages.pop(0),
        close=lambda: None,
    )
    monkeypatch.setattr("outboxd.kafka.transactional.progress_log.progress_consumer", lambda _: consumer)

    assert [record.number for record in read_above({}, "progress", 0, "lineage")] == [1, 2]


def test_an_event_that_is_not_there_has_a_piece_of_its_own_and_changes_no_other() -> None:
    event_ids = [str(UUID(int=number << 64)) for number in (5, 7)]
    assert list(event_pieces(["", event_ids[0], "", event_ids[1]])) == [0, 5, 0, 7]
