"""The outbox store: the relay's database port. Fetch and settle have a thread and a connection each.

Each begun job leaves exactly one event in the mailbox. A failed one says so, and the relay gives it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson
import psycopg
from sqlalchemy import Engine

from outboxd.policy.messages import (
    DueReplay,
    DueRetry,
    Event,
    Fetched,
    FetchFailed,
    FetchRequest,
    KeyHolder,
    Loaded,
    Pause,
    Settled,
    SettleFailed,
    Settlement,
    SweepRequest,
    Swept,
)
from outboxd.policy.outcomes import DeadLetter
from outboxd.policy.records import Record
from outboxd.postgres.arrays import Int8Array
from outboxd.postgres.fetch_sql import LISTED_MAX, FetchSql, Parts
from outboxd.postgres.load_sql import load_text, pauses_text, progress_text, sweep_text
from outboxd.postgres.lock_limit import milliseconds
from outboxd.postgres.names import quoted
from outboxd.postgres.ownership import NOBODY, Owner, has_moved
from outboxd.postgres.record_rows import records_of
from outboxd.postgres.sessions import Connection, Session
from outboxd.postgres.settle_sql import SettleSql, Writes

SETTLE_LOCK_SECONDS_MAX = 1.0
"""So long a settlement waits for a row that others have locked; it is given again then."""

PostEvent = Callable[[Event], None]


class PostgresStore:
    """Implements the relay's `OutboxStore` on two sessions."""

    def __init__(
        self,
        engine: Engine,
        post: PostEvent,
        *,
        schema: str,
        table: str,
        outbox: str,
        daemon: str,
        deletes: bool,
        record_bytes_max: int,
        record_type: type[Record] = Record,
        lease_ttl_seconds: float = 10.0,
    ) -> None:
        """Start the two threads; nothing is connected before the first job.

        Args:
            engine: where connections come from.
            post: leaves an event in the relay's mailbox; called on the store's threads.
            schema: the name of the schema.
            table: the name of the outbox's table in it.
            outbox: the name of the outbox.
            daemon: `host:pid`, for the dead letters.
            deletes: delivered rows are deleted instead of marked.
            record_bytes_max: payloads and headers above this are not shipped: the client would refuse them anyway.
            record_type: what rows are read as; the producer's inbox gives one that is its own delivery callback.
            lease_ttl_seconds: a settlement keeps the lease from others, so its waits are short beside this.
        """
        self._post = post
        self._schema, self._table, self._outbox = schema, table, outbox
        self._qualified = f"{quoted(schema)}.{quoted(table)}"
        self._owner = NOBODY
        self._daemon = daemon
        self._record_bytes_max = record_bytes_max
        self._record_type = record_type
        self._fetch_sql = FetchSql(schema, table)
        self._settle_sql = SettleSql(schema, table, deletes=deletes)
        self._reader = Session(engine, "fetch")
        self._lock_timeout = milliseconds(min(SETTLE_LOCK_SECONDS_MAX, lease_ttl_seconds / 3))
        self._writer = Session(engine, "settle", statement_timeout_seconds=max(1.0, lease_ttl_seconds / 2))
        self.fetching, self.settling = self._reader.under_way, self._writer.under_way

    def set_owner(self, owner: Owner) -> None:
        """Take what the lease's acquisition gave, by which fetches and settlements are fenced from now on."""
        self._owner = owner

    def close(self) -> None:
        """End both threads and close their connections."""
        self._reader.close()
        self._writer.close()

    # Load.

    def begin_load(self) -> None:
        """Read all held records and the pauses."""
        self._reader.submit(self._load, self._fetch_failed)

    def _load(self, connection: Connection) -> None:
        owner = self._owner
        arguments = {"outbox": self._outbox}
        held = connection.execute(load_text(self._schema, self._table), arguments).fetchall()
        rows = connection.execute(pauses_text(self._schema), arguments).fetchall()
        pauses = [Pause(*row[1:]) for row in rows if row[1] is not None]
        proof = {"table": self._qualified, "holder": owner.holder, "timeline": owner.timeline}
        (settled, lineage, owned, moved) = connection.execute(
            progress_text(self._schema), {**arguments, **proof}
        ).fetchall()[0]
        self._post(Loaded([KeyHolder(*row) for row in held], pauses, rows[0][0], settled, lineage, not owned, moved))

    # Fetch.

    def begin_fetch(self, request: FetchRequest, delay_seconds: float = 0.0) -> None:
        """Read pending records, and what goes with them, in one statement, `delay_seconds` from now."""
        self._reader.submit(partial(self._fetch, request, delay_seconds), self._fetch_failed)

    def _fetch_failed(self, message: str, lost: bool) -> None:
        self._post(FetchFailed(message, lost))

    def _fetch(self, request: FetchRequest, delay_seconds: float, connection: Connection) -> None:
        if delay_seconds > 0:
            time.sleep(delay_seconds)
        by_key = [wish for wish in request.rereads if wish.gate_key[1] is not None]
        serial = [wish for wish in request.rereads if wish.gate_key[1] is None]
        parts = Parts(
            look_back=bool(request.gap_lows),
            chosen=bool(request.chosen_ids),
            replay=bool(request.replay_ids),
            reread=bool(by_key),
            reread_serial=bool(serial),
            catch_up=bool(request.catch_ups),
            forward=request.forward,
            locks=request.want_locks,
            discards=request.want_discards,
            retries_after=request.retry_cursor is not None,
            delayed=request.available_cursor is not None,
        )
        owner = self._owner
        arguments: dict[str, object] = {
            "outbox": self._outbox,
            "holder": owner.holder,
            "timeline": owner.timeline,
            "position": request.position,
            "rows_max": request.rows_max,
            "bytes_max": request.bytes_max,
            "record_bytes_max": self._record_bytes_max,
            "replay_cursor": request.replay_cursor,
            "available_at": request.available_cursor,
            "table": self._qualified,
        }
        if request.retry_cursor is not None:
            arguments["retry_at"], arguments["retry_id"] = request.retry_cursor
        if request.gap_lows:
            arguments["gap_lows"] = Int8Array(request.gap_lows)
            arguments["gap_highs"] = Int8Array(request.gap_highs)
        arguments["chosen_ids"] = Int8Array(request.chosen_ids)
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
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(self._fetch_sql.text(parts), arguments).fetchall()
        self._post(self._fetched(rows))

    def _fetched(self, rows: list[tuple[Any, ...]]) -> Fetched:
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
            discarded=meta.get("discarded", ()),
            pauses=[Pause(*entry) for entry in meta.get("pauses", ())],
            available_ids=[entry[0] for entry in delayed],
            available_cursor=datetime.fromisoformat(delayed[-1][1]) if is_cut else now,
            fenced=not meta["owned"],
            moved=meta["moved"],
        )

    # Sweep.

    def begin_sweep(self, request: SweepRequest) -> None:
        """Read a chunk of the pending index."""
        self._reader.submit(partial(self._sweep, request), self._fetch_failed)

    def _sweep(self, request: SweepRequest, connection: Connection) -> None:
        arguments = {
            "cursor": request.cursor,
            "position": request.position,
            "rows_max": request.rows_max,
            "topics": list(request.skipped_topics),
            "key_topics": [topic for topic, _ in request.skipped_keys],
            "keys": [key for _, key in request.skipped_keys],
        }
        with connection.cursor(binary=True) as cursor:
            # Planned for its very cursor: from there on, most rows of the table may be published.
            rows = cursor.execute(sweep_text(self._schema, self._table), arguments, prepare=False).fetchall()
        last_id = rows.pop()[0] if rows and rows[-1][1] is None else None
        self._post(Swept(rows, last_id))

    # Settle.

    def begin_settle(self, settlement: Settlement, token: int) -> None:
        """Write outcomes under the lease's token, in one statement."""

        def failed(message: str, lost: bool) -> None:
            del lost  # Whether it was committed is unknown either way.
            self._post(SettleFailed(settlement, message))

        self._writer.submit(partial(self._settle, settlement, token), failed)

    def _settle(self, settlement: Settlement, token: int, connection: Connection) -> None:
        writes = Writes(
            delivered=bool(settlement.delivered_ids),
            retries=bool(settlement.retries),
            dead=bool(settlement.dead),
            replayed=bool(settlement.replayed),
            died_again=bool(settlement.died_again),
            out_of_retry=bool(settlement.out_of_retry),
            storms=bool(settlement.storms),
            progress=settlement.transaction is not None,
            pieces=bool(settlement.delivered_pieces),
        )
        owner = self._owner
        arguments: dict[str, object] = {
            "outbox": self._outbox,
            "token": token,
            "holder": owner.holder,
            "timeline": owner.timeline,
            "lock_timeout": self._lock_timeout,
            "daemon": self._daemon,
            "transaction": settlement.transaction,
            "delivered_ids": Int8Array(settlement.delivered_ids),
            "delivered_partitions": Int8Array(_no_nulls(settlement.delivered_partitions)),
            "delivered_offsets": Int8Array(_no_nulls(settlement.delivered_offsets)),
            "out_of_retry": Int8Array(settlement.out_of_retry),
        }
        if writes.pieces:
            arguments["delivered_pieces"] = list(settlement.delivered_pieces)
        if any((writes.retries, writes.dead, writes.replayed, writes.died_again, writes.storms)):
            arguments |= _exceptional(settlement)
        with connection.cursor(binary=True) as cursor:
            (owned, matched) = cursor.execute(self._settle_sql.text(writes), arguments).fetchall()[0]
        moved = owned == 0 and has_moved(connection, owner)
        self._post(Settled(settlement, matched, fenced=owned == 0, moved=moved))


def _no_nulls(values: Sequence[int | None]) -> list[int]:
    """Write -1 for what is unknown; the statement turns it into null."""
    return [-1 if value is None else value for value in values]


def _exceptional(settlement: Settlement) -> dict[str, object]:
    return {
        "retry_ids": [record_id for record_id, _ in settlement.retries],
        "retry_attempts": [retry.attempts for _, retry in settlement.retries],
        "retry_delays": [retry.delay_seconds for _, retry in settlement.retries],
        "retry_ages": [retry.own_age_seconds for _, retry in settlement.retries],
        "retry_codes": [retry.fault.name for _, retry in settlement.retries],
        "retry_messages": [retry.message for _, retry in settlement.retries],
        **_deaths("dead", settlement.dead),
        **_deaths("again", settlement.died_again),
        "replayed_ids": Int8Array([entry[0] for entry in settlement.replayed]),
        "replayed_partitions": Int8Array(_no_nulls([entry[1] for entry in settlement.replayed])),
        "replayed_offsets": Int8Array(_no_nulls([entry[2] for entry in settlement.replayed])),
        "storm_topics": [topic for topic, _ in settlement.storms],
        "storm_notes": [note for _, note in settlement.storms],
    }


def _deaths(prefix: str, deaths: Sequence[tuple[int, DeadLetter]]) -> dict[str, object]:
    return {
        f"{prefix}_ids": [record_id for record_id, _ in deaths],
        f"{prefix}_attempts": [death.attempts for _, death in deaths],
        f"{prefix}_reasons": [death.reason.value for _, death in deaths],
        f"{prefix}_codes": [death.fault.name for _, death in deaths],
        f"{prefix}_messages": [death.message for _, death in deaths],
        f"{prefix}_holds": [death.holds_key for _, death in deaths],
    }
