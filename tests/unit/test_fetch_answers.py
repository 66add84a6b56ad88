"""What the rows of a fetch mean, and how a long answer is read: piece by piece, on the relay's thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from outboxd.policy.exchange.reads import Arrived, Fetched, FetchFailed
from outboxd.policy.exchange.requests import FetchRequest
from outboxd.policy.rows.records import Arm, Record, id_of
from outboxd.postgres.store.fetching import FetchStatement
from outboxd.postgres.store.prepared import PIECE_ROWS

Rows = list[tuple[Any, ...]]

REQUEST = FetchRequest(position=0, rows_max=5_000, bytes_max=2**22)
META = orjson.dumps({"now": "2026-01-01T00:00:00+00:00", "standby": False, "moved": False, "owned": True}).decode()


def meta_row() -> tuple[Any, ...]:
    return (int(Arm.META), 0, None, None, None, None, META, None, 0, 0)


def rows(first: int, last: int) -> Rows:
    return [
        (int(Arm.FORWARD), record_id, f"event-{record_id}", "orders", "key", b"payload", "{}", None, 17, 600)
        for record_id in range(first, last + 1)
    ]


def answer(*pieces: Rows) -> Fetched | Arrived:
    statement = FetchStatement("outboxd", "outbox", "default", record_bytes_max=2**20, record_type=Record)
    return statement.answer(REQUEST, iter(pieces), 0.25)


def ids_of(fetched: Fetched | FetchFailed) -> list[int]:
    assert isinstance(fetched, Fetched)
    return list(map(id_of, fetched.records))


def test_a_short_answer_is_read_at_once() -> None:
    fetched = answer([meta_row(), *rows(1, 3)])

    assert isinstance(fetched, Fetched)
    assert (ids_of(fetched), fetched.waited_seconds) == ([1, 2, 3], 0.25)


@pytest.mark.parametrize("place", [0, 7, PIECE_ROWS - 1])
def test_a_long_answer_is_read_by_who_takes_it_wherever_its_meta_row_stands(place: int) -> None:
    first = rows(1, PIECE_ROWS - 1)
    first.insert(place, meta_row())

    arrived = answer(first, rows(PIECE_ROWS, 2 * PIECE_ROWS - 1), rows(2 * PIECE_ROWS, 600))

    assert isinstance(arrived, Arrived)
    assert ids_of(arrived.read()) == list(range(1, 601))


def test_a_meta_row_in_a_later_piece_is_found() -> None:
    arrived = answer(rows(1, PIECE_ROWS), [*rows(PIECE_ROWS + 1, 300), meta_row()])

    assert isinstance(arrived, Arrived)
    assert ids_of(arrived.read()) == list(range(1, 301))


def test_an_answer_that_cannot_be_read_to_its_end_is_a_failed_fetch() -> None:
    def pieces() -> Iterator[Rows]:
        yield [meta_row(), *rows(1, PIECE_ROWS - 1)]
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    statement = FetchStatement("outboxd", "outbox", "default", record_bytes_max=2**20, record_type=Record)
    arrived = statement.answer(REQUEST, pieces(), 0.0)

    assert isinstance(arrived, Arrived)
    failed = arrived.read()
    assert isinstance(failed, FetchFailed)
    assert "invalid start byte" in failed.message
