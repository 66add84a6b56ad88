"""What a fetch counts and ships of large rows: by what comes over the wire, whatever the table compresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboxd.kafka.messages import MessageChecks
from outboxd.policy.rows.records import WITHHELD, Record
from tests.contract.stores import PostgresBench
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

CLIENT_BYTES_MAX = 1_000_000
"""As the bench's store has it."""


class Outbox:
    """A store, and rows whose headers are one long value."""

    def __init__(self, database: Database) -> None:
        self.sql = database.connect()
        self.bench = PostgresBench(database)

    def insert(self, letter: str, letters: int, *, payload_bytes: int = 1) -> None:
        self.sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload, headers) VALUES"
            " ('orders', 'k', convert_to(repeat('x', %s), 'UTF8'), jsonb_build_object('h', repeat(%s, %s)))",
            (payload_bytes, letter, letters),
        )

    def fetch(self, bytes_max: int = 1 << 30) -> list[Record]:
        return list(self.bench.fetch(bytes_max=bytes_max).records)

    def stored_bytes(self) -> int:
        """What the headers take in the table."""
        size_bytes: int = value(self.sql, "SELECT sum(pg_column_size(headers)) FROM outboxd.outbox")
        return size_bytes


@pytest.fixture
def outbox(database: Database) -> Iterator[Outbox]:
    made = Outbox(database)
    yield made
    made.bench.close()
    made.sql.close()


def fault_of(record: Record) -> str | None:
    found = MessageChecks("shop", CLIENT_BYTES_MAX).fault_of(record)
    return None if found is None else found.fault.name


def test_headers_count_as_the_text_that_is_shipped_however_well_the_table_compresses_them(outbox: Outbox) -> None:
    for _ in range(20):
        outbox.insert("a", 400_000)
    assert outbox.stored_bytes() < 200_000

    bytes_max = 1_000_000
    records = outbox.fetch(bytes_max)

    assert len(records) == 3
    assert all(record.size_bytes >= len(record.headers) > 400_000 for record in records)


@pytest.mark.parametrize("storage", ["EXTENDED", "EXTERNAL"])
def test_headers_that_the_client_would_refuse_are_not_shipped_and_the_row_is_too_large(
    outbox: Outbox, storage: str
) -> None:
    outbox.sql.execute(f"ALTER TABLE outboxd.outbox ALTER COLUMN headers SET STORAGE {storage}".encode())
    outbox.insert("a", 6 * CLIENT_BYTES_MAX)

    (record,) = outbox.fetch()

    assert record.headers == WITHHELD
    assert record.size_bytes > 6 * CLIENT_BYTES_MAX
    assert fault_of(record) == "MSG_SIZE_TOO_LARGE"


def test_headers_that_are_longer_as_json_than_for_the_client_are_shipped(outbox: Outbox) -> None:
    outbox.insert('"', 900_000)

    (record,) = outbox.fetch()

    assert len(record.headers) > 1_800_000
    assert fault_of(record) is None


def test_a_payload_that_the_client_would_refuse_is_shipped_so_far_that_it_refuses_it(outbox: Outbox) -> None:
    outbox.insert('"', 600_000, payload_bytes=3 * CLIENT_BYTES_MAX)

    (record,) = outbox.fetch()

    assert record.payload == b"x" * (CLIENT_BYTES_MAX + 1)
    assert record.size_bytes > 3 * CLIENT_BYTES_MAX
    assert fault_of(record) == "MSG_SIZE_TOO_LARGE"


def test_of_several_parts_what_is_beyond_the_limit_is_cut_by_the_same_sizes(outbox: Outbox) -> None:
    for _ in range(10):
        outbox.insert("a", 400_000)

    records = outbox.bench.fetch(position=4, gap_lows=[1], gap_highs=[4], bytes_max=2_000_000).records

    assert [record.id for record in records] == [1, 2, 3, 4, 5]
    assert all(record.size_bytes >= len(record.headers) > 400_000 for record in records)
