"""The checker finds what it is there to find: a lost, repeated, swapped, changed, misplaced or invented record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.checker import Verdict, check, witness
from tests.support.kafka_admin import KafkaRecord
from tests.support.postgres_fixtures import Database

ROWS = 5


class Witnessed:
    """Five rows of one key, marked as delivered to offsets 0 to 4, and the records that a perfect relay leaves."""

    def __init__(self, sql: psycopg.Connection[Any]) -> None:
        self.sql = sql
        witness(sql)
        rows = sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload, headers) SELECT 'orders', 'k', 'x', '{\"a\": \"b\"}'"
            " FROM generate_series(1, %s)"
            " RETURNING id, event_id::text, (date_part('epoch', created_at) * 1000)::bigint",
            (ROWS,),
        ).fetchall()
        sql.execute(
            "UPDATE outboxd.outbox SET published_at = now(), published_partition = 0, published_offset = id - 1"
        )
        self.records = [
            KafkaRecord(
                "orders", 0, offset, time_ms, b"k", b"x",
                (
                    ("a", b"b"),
                    ("outbox-id", str(row_id).encode()),
                    ("outbox-event-id", event_id.encode()),
                    ("outbox-source", b"default"),
                ),
            )
            for offset, (row_id, event_id, time_ms) in enumerate(rows)
        ]  # fmt: skip

    def verdict(self) -> Verdict:
        return check(self.sql, self.records)


@pytest.fixture
def witnessed(database: Database) -> Iterator[Witnessed]:
    with database.connect() as connection:
        yield Witnessed(connection)


def test_a_perfect_log_passes(witnessed: Witnessed) -> None:
    verdict = witnessed.verdict()
    verdict.assert_holds()
    assert (verdict.written, verdict.delivered, verdict.published) == (ROWS, ROWS, ROWS)


def test_a_missing_record_is_lost(witnessed: Witnessed) -> None:
    del witnessed.records[2]
    assert witnessed.verdict().lost == [3]
    with pytest.raises(AssertionError, match="1 lost"):
        witnessed.verdict().assert_holds()


def test_a_row_that_is_pending_or_dead_is_not_lost_but_counted(witnessed: Witnessed) -> None:
    del witnessed.records[2]
    witnessed.sql.execute("UPDATE outboxd.outbox SET published_at = NULL WHERE id = 3")
    assert witnessed.verdict().lost == []
    with pytest.raises(AssertionError, match="1 pending"):
        witnessed.verdict().assert_holds()


def test_a_repeated_record_is_a_duplicate(witnessed: Witnessed) -> None:
    witnessed.records.append(witnessed.records[0]._replace(offset=5))
    assert witnessed.verdict().duplicates == 1
    with pytest.raises(AssertionError, match="1 duplicates"):
        witnessed.verdict().assert_holds()


def test_swapped_records_are_out_of_order_and_out_of_place(witnessed: Witnessed) -> None:
    records = witnessed.records
    records[1], records[2] = records[2]._replace(offset=1), records[1]._replace(offset=2)
    verdict = witnessed.verdict()
    assert len(verdict.inverted) == 1
    assert len(verdict.misplaced) == 2


def test_a_repeat_out_of_order_is_no_inversion_since_first_deliveries_count(witnessed: Witnessed) -> None:
    witnessed.records.append(witnessed.records[0]._replace(offset=5))
    assert witnessed.verdict().inverted == []


@pytest.mark.parametrize(
    "change", [{"value": b"y"}, {"value": None}, {"key": b""}, {"timestamp_ms": 5}, {"topic": "invoices"}]
)
def test_a_changed_record_is_found(witnessed: Witnessed, change: dict[str, Any]) -> None:
    witnessed.records[0] = witnessed.records[0]._replace(**change)
    assert len(witnessed.verdict().changed) == 1


def test_changed_headers_are_found(witnessed: Witnessed) -> None:
    record = witnessed.records[0]
    witnessed.records[0] = record._replace(headers=record.headers[1:])
    assert len(witnessed.verdict().changed) == 1


def test_a_record_of_a_row_that_was_rolled_back_is_a_ghost(witnessed: Witnessed) -> None:
    record = witnessed.records[0]
    headers = tuple((name, b"99" if name == "outbox-id" else value) for name, value in record.headers)
    witnessed.records.append(record._replace(offset=5, headers=headers))
    assert witnessed.verdict().ghosts == [99]
