"""The outbox store: the relay's database port. Fetch and settle have a thread and a connection each.

Each begun job leaves exactly one event in the mailbox. A failed one says so, and the relay gives it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import psycopg
from psycopg import errors
from sqlalchemy import Engine

from outboxd.alarm import Alarm
from outboxd.policy.exchange.messages import Event, Settled, SettleFailed
from outboxd.policy.exchange.reads import Arrived, FetchFailed, KeyHolder, Loaded, Pause, Swept
from outboxd.policy.exchange.requests import IMPATIENT, FetchRequest, Patience, Settlement, SweepRequest
from outboxd.policy.rows.records import FIRST_ID, Record, size_of
from outboxd.postgres.connections.arrays import Int8Array
from outboxd.postgres.connections.failures import in_words, is_refusal
from outboxd.postgres.connections.lock_limit import milliseconds
from outboxd.postgres.connections.sessions import Connection, Session
from outboxd.postgres.lease.ownership import NOBODY, Owner, has_moved
from outboxd.postgres.schema.names import quoted
from outboxd.postgres.store.fetching import FetchStatement
from outboxd.postgres.store.kept_rows import KEPT, are_kept
from outboxd.postgres.store.load_sql import load_text, pauses_text, progress_text, sweep_text
from outboxd.postgres.store.lock_holders import holder_of
from outboxd.postgres.store.outcome_arguments import exceptional, recovered
from outboxd.postgres.store.prepared import PreparedStatements
from outboxd.postgres.store.settle_sql import SettleSql, Writes

SETTLE_LOCK_SECONDS_MAX = 0.5
"""So long a settlement waits for a row that others have locked; it is given again then. That is well below the second
after which PostgreSQL looks for deadlocks and ends who waits: in one with an application, the settlement gives way."""
PART_LOCK_SECONDS_MAX = 0.05
"""So long waits what is left of one that was refused: others wait for it, and it is tried again anyway."""
READ_SECONDS_MAX = 60.0
"""So long may a fetch, a sweep's chunk or a load take: far longer than any of them does on a server that is well."""

KEPT_ANSWER_BYTES_MAX = 65_536
"""A larger answer is let go at once: records hold what it says by then."""

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
        exactly_once: bool = False,
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
            record_bytes_max: the client's limit; of payloads and headers above it no more is shipped than shows that.
            record_type: what rows are read as; the producer's inbox gives one that is its own delivery callback.
            lease_ttl_seconds: a settlement keeps the lease from others, so its waits are short beside this.
            exactly_once: what is settled is on the disk before it is told, whatever the role asks of its sessions.
        """
        self._post = post
        self._schema, self._table, self._outbox, self._daemon = schema, table, outbox, daemon
        self._qualified = f"{quoted(schema)}.{quoted(table)}"
        self._owner = NOBODY
        self._record_bytes_max = record_bytes_max
        self._fetching = FetchStatement(
            schema, table, outbox, record_bytes_max=record_bytes_max, record_type=record_type
        )
        self._settle_sql = SettleSql(schema, table, deletes=deletes, exactly_once=exactly_once)
        self._reads, self._writes, self._alarm = PreparedStatements(), PreparedStatements(), Alarm()
        self._reader = Session(engine, "fetch", statement_timeout_seconds=READ_SECONDS_MAX)
        self._lock_seconds = min(SETTLE_LOCK_SECONDS_MAX, lease_ttl_seconds / 3)
        self._writer = Session(
            engine,
            "settle",
            statement_timeout_seconds=max(1.0, lease_ttl_seconds / 2),
            lock_timeout_seconds=self._lock_seconds,
        )
        self.fetching, self.settling = self._reader.under_way, self._writer.under_way

    def set_owner(self, owner: Owner) -> None:
        """Take what the lease's acquisition gave, by which fetches and settlements are fenced from now on."""
        self._owner = owner

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End both threads and close their connections, or leave each behind after `timeout_seconds`."""
        self._alarm.ring()
        self._reader.close(timeout_seconds)
        self._writer.close(timeout_seconds)

    # Load.

    def begin_load(self) -> None:
        """Read all held records and the pauses."""
        self._reader.submit(self._load, self._fetch_failed)

    def _load(self, connection: Connection) -> None:
        arguments = {"outbox": self._outbox}
        held = connection.execute(load_text(self._schema, self._table), arguments).fetchall()
        rows = connection.execute(pauses_text(self._schema), arguments).fetchall()
        pauses = [Pause(*row[1:]) for row in rows if row[1] is not None]
        (settled, lineage, owned, moved) = connection.execute(
            progress_text(self._schema), {**arguments, **self._proof()}
        ).fetchall()[0]
        self._post(Loaded([KeyHolder(*row) for row in held], pauses, rows[0][0], settled, lineage, not owned, moved))

    def _proof(self) -> dict[str, object]:
        owner = self._owner
        return {
            "holder": owner.holder,
            "timeline": owner.timeline,
            "storage": owner.storage,
            "table": self._qualified,
        }

    # Fetch.

    def begin_fetch(self, request: FetchRequest, delay_seconds: float = 0.0, patience: Patience = IMPATIENT) -> None:
        """Read pending records, and what goes with them, in one statement, `delay_seconds` from now; and again while
        nothing shows, as `patience` says: an idle outbox costs the relay's thread nothing then.
        """
        self._reader.submit(partial(self._fetch, request, delay_seconds, patience), self._fetch_failed)

    def hurry_fetch(self) -> None:
        """Have a fetch that waits ask at once, and answer whatever it finds."""
        self._alarm.ring()

    def _fetch_failed(self, message: str) -> None:
        self._post(FetchFailed(message))

    def _fetch(self, request: FetchRequest, delay_seconds: float, patience: Patience, connection: Connection) -> None:
        asked_at = time.monotonic()
        text, arguments = self._fetching.statement(request, self._owner)
        is_hurried = False
        while True:
            if delay_seconds > 0:
                is_hurried = self._alarm.sleep(delay_seconds)
            given_at = time.monotonic()
            pieces = self._reads.pieces(connection, text, arguments)
            fetched = self._fetching.answer(request, pieces, given_at - asked_at)
            if isinstance(fetched, Arrived):
                self._reads.release()
                break
            if sum(map(size_of, fetched.records)) > KEPT_ANSWER_BYTES_MAX:
                self._reads.release()
            delay_seconds = patience.interval_seconds
            is_over = is_hurried or given_at + delay_seconds >= asked_at + patience.seconds
            if is_over or not fetched.shows_nothing:
                break
            self.fetching.lap()
        self._post(fetched)

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
            "from_ids": Int8Array(list(request.skipped_topics.values())),
            "key_topics": [topic for topic, _ in request.skipped_keys],
            "keys": [key for _, key in request.skipped_keys],
        }
        given_at = time.monotonic()
        with connection.cursor(binary=True) as cursor:
            # Planned for its very cursor: from there on, most rows of the table may be published.
            text = sweep_text(self._schema, self._table, is_first=request.cursor == FIRST_ID)
            rows = cursor.execute(text, arguments, prepare=False).fetchall()
        last_id = rows.pop()[0] if rows and rows[-1][1] is None else None
        self._post(Swept(rows, last_id, time.monotonic() - given_at))

    # Settle.

    def begin_settle(self, settlement: Settlement, token: int) -> None:
        """Write outcomes under the lease's token, in one statement."""

        def failed(message: str) -> None:
            self._post(SettleFailed(settlement, message))

        self._writer.submit(partial(self._settle, settlement, token), failed)

    def _settle(self, settlement: Settlement, token: int, connection: Connection) -> None:
        writes = Writes(
            delivered=bool(settlement.delivered_ids),
            retries=bool(settlement.retries),
            dead=bool(settlement.dead),
            replayed=bool(settlement.replayed),
            recovered_replays=bool(settlement.recovered_replays),
            died_again=bool(settlement.died_again),
            out_of_retry=bool(settlement.out_of_retry),
            storms=bool(settlement.storms),
            progress=settlement.transaction is not None,
            pieces=bool(settlement.delivered_pieces or settlement.dead_pieces),
            is_recovered=settlement.is_recovered,
        )
        owner = self._owner
        arguments: dict[str, object] = {
            "outbox": self._outbox,
            "token": token,
            **self._proof(),
            "lock_timeout": milliseconds(PART_LOCK_SECONDS_MAX if settlement.is_part else self._lock_seconds),
            "daemon": self._daemon,
            "transaction": settlement.transaction,
            "record_bytes_max": self._record_bytes_max,
            "delivered_ids": Int8Array(settlement.delivered_ids),
            "delivered_partitions": Int8Array(settlement.delivered_partitions),
            "delivered_offsets": Int8Array(settlement.delivered_offsets),
            "out_of_retry": Int8Array(settlement.out_of_retry),
        }
        if writes.pieces:
            arguments["delivered_pieces"] = list(settlement.delivered_pieces)
            arguments["dead_pieces"] = list(settlement.dead_pieces)
        if writes.recovered_replays:
            arguments |= recovered(settlement)
        if any((writes.retries, writes.dead, writes.replayed, writes.died_again, writes.storms)):
            arguments |= exceptional(settlement)
        try:
            (owned, matched) = self._writes.rows(connection, self._settle_sql.text(writes), arguments)[0]
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            self._post(SettleFailed(settlement, self._refused(error, settlement, connection), refused=True))
            return
        is_short = owned > 0 and matched < settlement.rows
        if is_short and are_kept(connection, self._schema, self._table, settlement):
            self._post(SettleFailed(settlement, KEPT, refused=True, in_part=True))
            return
        moved = owned == 0 and has_moved(connection, owner, self._qualified)
        self._post(Settled(settlement, matched, fenced=owned == 0, moved=moved))

    def _refused(self, error: psycopg.Error, settlement: Settlement, connection: Connection) -> str:
        """Return why the settlement was refused, in words, with the session that is in the way of one row's lock."""
        said = in_words(error)
        if not isinstance(error, errors.LockNotAvailable):
            return said
        rows = [*settlement.delivered_ids, *(record_id for record_id, _ in settlement.dead)]
        holder = holder_of(connection, self._schema, self._table, rows if len(rows) == 1 else ())
        return said if holder is None else f"{said}. {holder[0].upper()}{holder[1:]}"
