"""Fetching: what the relay asks for as a statement with its arguments, and the statement's rows as an answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import psycopg

from outboxd.policy.deferrals import Reread
from outboxd.policy.messages import DueReplay, DueRetry, Fetched, HoldingLetters, KeyHolder, Pause
from outboxd.policy.records import Record
from outboxd.policy.requests import FetchRequest
from outboxd.postgres.arrays import Int8Array
from outboxd.postgres.fetch_sql import LISTED_MAX, FetchSql, Parts
from outboxd.postgres.names import quoted
from outboxd.postgres.ownership import Owner
from outboxd.postgres.record_rows import records_of


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
            delayed=request.available_cursor is not None,
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
            "available_at": request.available_cursor,
            "holding_after": request.holding_after,
            "table": self._qualified,
        }
        if request.retry_cursor is not None:
            arguments["retry_at"], arguments["retry_id"] = request.retry_cursor
        if request.gap_lows:
            arguments["gap_lows"] = Int8Array(request.gap_lows)
            arguments["gap_highs"] = Int8Array(request.gap_highs)
        if request.chosen_ids:
            arguments["chosen_ids"] = Int8Array(request.chosen_ids)
        if request.replay_ids:
            arguments["replay_ids"] = Int8Array(request.replay_ids)
        if request.rereads:
            arguments["reread_rows_max"] = request.reread_rows_max
            arguments["reread_topics"] = [wish.gate_key[0] for wish in by_key]
            arguments["reread_keys"] = [wish.gate_key[1] for wish in by_key]
            arguments["reread_ids"] = Int8Array([wish.from_id for wish in by_key])
            arguments["serial_topics"] = [wish.gate_key[0] for wish in serial]
            arguments["serial_ids"] = Int8Array([wish.from_id for wish in serial])
        if request.catch_ups:
            arguments["catch_up_rows_max"] = request.catch_up_rows_max
            arguments["catch_up_topics"] = [wish.topic for wish in request.catch_ups]
            arguments["catch_up_ids"] = Int8Array([wish.from_id for wish in request.catch_ups])
        if request.probe_reads:
            arguments["probe_rows_max"] = request.probe_rows_max
            arguments["probe_topics"] = [wish.topic for wish in request.probe_reads]
            arguments["probe_ids"] = Int8Array([wish.from_id for wish in request.probe_reads])
        return self._sql.text(parts), arguments

    def answer(self, request: FetchRequest, rows: list[tuple[Any, ...]], waited_seconds: float) -> Fetched:
        """Return what these rows mean to the request; the META row is taken out of them.

        `waited_seconds` is how long after it was asked for the statement was given. Raises
        psycopg.errors.ReadOnlySqlTransaction where the server is a standby.
        """
        place = 0 if rows[0][0] == 0 else next(place for place, row in enumerate(rows) if row[0] == 0)
        meta = orjson.loads(rows.pop(place)[6])
        if meta["standby"]:
            raise psycopg.errors.ReadOnlySqlTransaction("the server is a read-only standby")
        now = datetime.fromisoformat(meta["now"])
        due = meta.get("due", [])
        delayed = meta.get("available", [])
        is_cut = len(delayed) >= LISTED_MAX
        return Fetched(
            records=records_of(rows, self._record_type),
            now_ms=int(now.timestamp() * 1000),
            now=now,
            locks=frozenset(meta.get("locks", ())),
            due=[DueRetry(*entry[:3]) for entry in due],
            retry_cursor=(datetime.fromisoformat(due[-1][3]), due[-1][0]) if due else None,
            replays=[DueReplay(*entry) for entry in meta.get("replays", ())],
            holding=None if request.holding_after is None else _holding(meta.get("holding", ())),
            pauses=[Pause(*entry) for entry in meta.get("pauses", ())],
            available_ids=[entry[0] for entry in delayed],
            available_cursor=datetime.fromisoformat(delayed[-1][1]) if is_cut else now,
            fenced=not meta["owned"],
            moved=meta["moved"],
            waited_seconds=waited_seconds,
        )


def _holding(listed: Sequence[Sequence[Any]]) -> HoldingLetters:
    letters = [
        KeyHolder(outbox_id, topic, key, attempts, None, letter_id, replaying, 0.0)
        for outbox_id, topic, key, attempts, letter_id, replaying in listed
    ]
    return HoldingLetters(letters, letters[-1].outbox_id if len(letters) >= LISTED_MAX else None)
