"""Fetching: what the relay asks for as a statement with its arguments, and the statement's rows as an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

from outboxd.policy.exchange.reads import Arrived, DueReplay, Fetched, FetchFailed, HoldingLetters, KeyHolder, Pause
from outboxd.policy.exchange.requests import FetchRequest
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.rows.records import FIRST_ID, ID_MAX, Arm, Record
from outboxd.postgres.connections.arrays import Int8Array
from outboxd.postgres.connections.failures import in_words
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.store.fetch_sql import LISTED_MAX, FetchSql, Parts
from outboxd.postgres.store.prepared import PIECE_ROWS
from outboxd.postgres.store.record_rows import records_of


class FetchStatement:
    """The fetch of one outbox."""

    def __init__(
        self, schema: str, table: str, outbox: str, *, record_bytes_max: int, record_type: type[Record]
    ) -> None:
        """The arguments are those of the store."""
        self._outbox = outbox
        self._qualified = f"{quoted(schema)}.{quoted(table)}"
        self._record_bytes_max = record_bytes_max
        self._record_type = record_type
        self._sql = FetchSql(schema, table)

    def statement(self, request: FetchRequest, owner: Owner) -> tuple[str, dict[str, object]]:
        """Return text and arguments that ask for this; `owner` is who has to own the outbox."""
        by_key: Sequence[Reread] = ()
        serial: Sequence[Reread] = ()
        if request.rereads:
            by_key = [wish for wish in request.rereads if wish.gate_key[1] is not None]
            serial = [wish for wish in request.rereads if wish.gate_key[1] is None]
        parts = Parts(
            look_back=bool(request.gap_lows),
            known=request.known is not None,
            chosen=bool(request.chosen_ids),
            replay=bool(request.replay_ids),
            reread=bool(by_key),
            reread_serial=bool(serial),
            catch_up=bool(request.catch_ups),
            probe=bool(request.probe_reads),
            forward=request.forward,
            locks=request.want_locks,
            holding=request.holding_after is not None,
            retries_after=request.retry_cursor is not None,
            replays_after=request.replay_cursor > FIRST_ID,
            delayed=request.available_cursor is not None,
            top=request.want_top,
        )
        arguments: dict[str, object] = {
            "outbox": self._outbox,
            "holder": owner.holder,
            "timeline": owner.timeline,
            "storage": owner.storage,
            "position": request.position,
            "rows_max": request.rows_max,
            "bytes_max": request.bytes_max,
            "record_bytes_max": self._record_bytes_max,
            "replay_cursor": request.replay_cursor,
            "holding_after": request.holding_after,
            "table": self._qualified,
        }
        if request.available_cursor is not None:
            arguments["available_at"], arguments["available_id"] = request.available_cursor
        if request.retry_cursor is not None:
            arguments["retry_at"], arguments["retry_id"] = request.retry_cursor
        if request.gap_lows:
            arguments["gap_lows"] = Int8Array(request.gap_lows)
            arguments["gap_highs"] = Int8Array(request.gap_highs)
        if request.known is not None:
            arguments["known_topics"] = Jsonb(request.known.topics, orjson.dumps)
            arguments["known_keys"] = Jsonb(request.known.keys, orjson.dumps)
            arguments["known_ids"] = Int8Array(request.known.ids)
        if request.reads_again:
            arguments |= _read_again(request, by_key, serial)
        return self._sql.text(parts), arguments

    def answer(
        self, request: FetchRequest, pieces: Iterator[list[tuple[Any, ...]]], waited_seconds: float
    ) -> Fetched | Arrived:
        """Return what these rows mean to the request; of a long answer only what stands first is read here.

        `waited_seconds` is how long after it was asked for the statement was given. Raises
        psycopg.errors.ReadOnlySqlTransaction where the server is a standby.
        """
        rows, meta_text = _to_meta(pieces)
        meta = orjson.loads(meta_text)
        if meta["standby"]:
            raise psycopg.errors.ReadOnlySqlTransaction("the server is a read-only standby")
        values: dict[object, Any] = {}
        fetched = self._fetched(request, meta, records_of(rows, self._record_type, values), waited_seconds)
        if len(rows) + 1 < PIECE_ROWS:
            return fetched
        return Arrived(partial(self._read, fetched, pieces, values))

    def _read(
        self, fetched: Fetched, pieces: Iterator[list[tuple[Any, ...]]], values: dict[object, Any]
    ) -> Fetched | FetchFailed:
        try:
            for rows in pieces:
                fetched.records.extend(records_of(rows, self._record_type, values))
        except Exception as error:  # noqa: BLE001 - as in a session: whatever it is, the relay waits for an answer
            return FetchFailed(in_words(error))
        return fetched

    def _fetched(
        self, request: FetchRequest, meta: Mapping[str, Any], records: list[Record], waited_seconds: float
    ) -> Fetched:
        now = datetime.fromisoformat(meta["now"])
        due = meta.get("due", [])
        delayed = meta.get("available", [])
        is_cut = len(delayed) >= LISTED_MAX
        return Fetched(
            records=records,
            now_ms=int(now.timestamp() * 1000),
            locks=frozenset(meta.get("locks", ())),
            due_ids=[entry[0] for entry in due],
            retry_cursor=(datetime.fromisoformat(due[-1][1]), due[-1][0]) if due else None,
            replays=[DueReplay(*entry) for entry in meta.get("replays", ())],
            holding=None if request.holding_after is None else _holding(meta.get("holding", ())),
            pauses=[Pause(*entry) for entry in meta.get("pauses", ())],
            available_ids=[entry[0] for entry in delayed],
            available_cursor=(datetime.fromisoformat(delayed[-1][1]), delayed[-1][0]) if is_cut else (now, ID_MAX),
            top_id=meta.get("top"),
            fenced=not meta["owned"],
            moved=meta["moved"],
            waited_seconds=waited_seconds,
        )


def _to_meta(pieces: Iterator[list[tuple[Any, ...]]]) -> tuple[list[tuple[Any, ...]], str]:
    """Return the rows up to the end of the piece with the META row, mostly the first, without it; and its text."""
    rows: list[tuple[Any, ...]] = []
    while True:
        rows += next(pieces)
        for place, row in enumerate(rows):
            if row[0] == Arm.META:
                del rows[place]
                return rows, row[6]


def _read_again(request: FetchRequest, by_key: Sequence[Reread], serial: Sequence[Reread]) -> dict[str, object]:
    """Return the arguments of the parts that show what was seen before."""
    arguments: dict[str, object] = {
        "chosen_ids": Int8Array(request.chosen_ids),
        "replay_ids": Int8Array(request.replay_ids),
        "reread_rows_max": request.reread_rows_max,
        "reread_topics": [wish.gate_key[0] for wish in by_key],
        "reread_keys": [wish.gate_key[1] for wish in by_key],
        "reread_ids": Int8Array([wish.from_id for wish in by_key]),
        "catch_up_rows_max": request.catch_up_rows_max,
        "probe_rows_max": request.probe_rows_max,
    }
    by_topic = {
        "serial": [(wish.gate_key[0], wish.from_id) for wish in serial],
        "catch_up": [(wish.topic, wish.from_id) for wish in request.catch_ups],
        "probe": [(wish.topic, wish.from_id) for wish in request.probe_reads],
    }
    for name, wishes in by_topic.items():
        arguments[f"{name}_topics"] = [topic for topic, _ in wishes]
        arguments[f"{name}_ids"] = Int8Array([from_id for _, from_id in wishes])
        arguments[f"{name}_ends"] = Int8Array([request.end_of(from_id) for _, from_id in wishes])
    return arguments


def _holding(listed: Sequence[Sequence[Any]]) -> HoldingLetters:
    letters = [
        KeyHolder(outbox_id, topic, key, attempts, letter_id, replaying, 0.0)
        for outbox_id, topic, key, attempts, letter_id, replaying in listed
    ]
    return HoldingLetters(letters, letters[-1].outbox_id if len(letters) >= LISTED_MAX else None)
