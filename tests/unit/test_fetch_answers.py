"""What the rows of a fetch mean, and how a long answer is read: piece by piece, on the relay's thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from outboxd.policy.exchange.reads import Arrived, DueReplay, Fetched, FetchFailed, HoldingLetters, Pause
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


@pytest.mark.parametrize(
    "news",
    [
        {"records": [Record(*rows(1, 1)[0])]},
        {"due_ids": [1]},
        {"replays": [DueReplay(7, 1, "orders", None, 0)]},
        {"pauses": [Pause("orders", 0, "ops", None)]},
        {"available_ids": [1]},
        {"top_id": -1},
        {"locks": frozenset({"3/1"})},
        {"holding": HoldingLetters([], None)},
        {"fenced": True},
        {"moved": True},
    ],
    ids=lambda news: next(iter(news)),
)
def test_whatever_an_answer_has_for_the_relay_ends_the_databases_patience(news: dict[str, Any]) -> None:
    empty = Fetched([], 17)

    assert empty.shows_nothing
    assert not empty._replace(**news).shows_nothing


def test_a_read_of_a_topic_ends_at_the_position_above_which_the_forward_read_shows_all() -> None:
    request = REQUEST._replace(position=100, reach_ids=30)

    assert [request.end_of(from_id) for from_id in (1, 70, 71, 100)] == [31, 100, 100, 100]
