"""The OutboxStore port on a real PostgreSQL and on the simulation's database, with the same handles for tests."""

from __future__ import annotations

import queue
import random
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

import psycopg

from outboxd.policy.exchange.messages import Event, Settled
from outboxd.policy.exchange.reads import Arrived, Fetched, Loaded, Swept
from outboxd.policy.exchange.requests import FetchRequest, Patience, Settlement, SweepRequest
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.lease.ownership import Owner
from outboxd.postgres.store.store import PostgresStore
from outboxd.relay.ports import OutboxStore
from tests.simulation.database import Database as SimulatedDatabase
from tests.simulation.database import Kind, Row
from tests.simulation.store import SimulatedStore, StatementFaults
from tests.simulation.timeline import Timeline
from tests.support.children import wait_for
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

ANSWER_SECONDS_MAX = 10.0
PAYLOAD_BYTES = 100

Answer = TypeVar("Answer", bound=Event)


class Writer(Protocol):
    """A writer's transaction that is open."""

    def insert(self, topic: str, key: str | None = "k") -> int: ...
    def prepare(self) -> None: ...
    def end(self, *, commit: bool) -> None: ...


class StoreBench(ABC):
    """A store, its tables, and whoever else works on them."""

    store: OutboxStore

    @abstractmethod
    def insert(self, topic: str, key: str | None = "k", *, available_in_seconds: float | None = None) -> int:
        """Commit a row of PAYLOAD_BYTES."""

    @abstractmethod
    def insert_together(self, rows: int, *, available_in_seconds: float) -> list[int]:
        """Commit so many rows that come to be due at one moment; return their ids in order."""

    @abstractmethod
    def open(self) -> Writer: ...

    @abstractmethod
    def take_over(self) -> int:
        """Acquire the lease for this store, from whoever has it; return the token."""

    @abstractmethod
    def succeed(self) -> None:
        """Another daemon acquires the lease."""

    def answer(self) -> Event:
        """Wait for the store's next event, and read it where it is a long answer."""
        event = self.next_event()
        return event.read() if isinstance(event, Arrived) else event

    @abstractmethod
    def next_event(self) -> Event:
        """Wait for the store's next event."""

    @abstractmethod
    def wait_until_asked(self) -> None:
        """Wait until a patient fetch has asked once at least."""

    @abstractmethod
    def is_pending(self, record_id: int) -> bool: ...

    @abstractmethod
    def letter(self, record_id: int) -> tuple[int, str] | None:
        """The id and the status of the row's dead letter."""

    @abstractmethod
    def attempts(self, record_id: int) -> int | None:
        """The attempts in `retry`."""

    @abstractmethod
    def replay(self, letter_id: int) -> None: ...

    @abstractmethod
    def take_back(self, letter_id: int) -> None: ...

    @abstractmethod
    def mend(self, letter_id: int, key: str) -> None: ...

    @abstractmethod
    def discard(self, letter_id: int) -> None: ...

    @abstractmethod
    def pause(self, pattern: str) -> None: ...

    @abstractmethod
    def lock(self, record_id: int) -> None:
        """Somebody locks the row, and keeps it locked until the end."""

    @abstractmethod
    def pass_time(self, seconds: float) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    # The port, asked and answered.

    def begin_patiently(self, seconds: float, *, interval_seconds: float = 0.01) -> None:
        """Ask for new rows, and go on asking for so long while there are none."""
        request = FetchRequest(position=0, rows_max=100, bytes_max=10**9)
        self.store.begin_fetch(request, 0.0, Patience(interval_seconds, seconds))

    def _asked(self, begin: Callable[[], None], kind: type[Answer]) -> Answer:
        begin()
        event = self.answer()
        assert isinstance(event, kind), event
        return event

    def fetch(self, **request: Any) -> Fetched:
        full: dict[str, Any] = {"position": 0, "rows_max": 100, "bytes_max": 10**9, **request}
        return self._asked(lambda: self.store.begin_fetch(FetchRequest(**full)), Fetched)

    def sweep(self, **request: Any) -> Swept:
        full: dict[str, Any] = {"cursor": 0, "position": 10**9, "rows_max": 100, **request}
        return self._asked(lambda: self.store.begin_sweep(SweepRequest(**full)), Swept)

    def load(self) -> Loaded:
        return self._asked(self.store.begin_load, Loaded)

    def settle(self, token: int, **settlement: Any) -> Settled:
        return self._asked(lambda: self.store.begin_settle(Settlement(**settlement), token), Settled)


class PostgresBench(StoreBench):
    """The real one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.connect()
        self._locking: list[psycopg.Connection[Any]] = []
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._engine = make_engine(database.url)
        self._store = PostgresStore(
            self._engine,
            self._events.put,
            schema="outboxd",
            table="outbox",
            outbox="default",
            daemon="here:1",
            deletes=False,
            record_bytes_max=1_000_000,
        )
        self.store = self._store

    def insert(self, topic: str, key: str | None = "k", *, available_in_seconds: float | None = None) -> int:
        row_id: int = value(
            self._sql,
            "INSERT INTO outboxd.outbox (topic, key, payload, available_at)"
            " VALUES (%s, %s, %s, clock_timestamp() + make_interval(secs => %s)) RETURNING id",
            topic, key, b"x" * PAYLOAD_BYTES, available_in_seconds,
        )  # fmt: skip
        return row_id

    def insert_together(self, rows: int, *, available_in_seconds: float) -> list[int]:
        inserted = self._sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload, available_at)"
            " SELECT 'orders', 'k', %s, now() + make_interval(secs => %s) FROM generate_series(1, %s) RETURNING id",
            (b"x" * PAYLOAD_BYTES, available_in_seconds, rows),
        ).fetchall()
        return sorted(int(str(row[0])) for row in inserted)

    def open(self) -> Writer:
        return _PostgresWriter(self._database.connect(autocommit=False), self._sql)

    def _acquire(self) -> tuple[str, int]:
        holder = str(uuid.uuid4())
        token: int = value(
            self._sql,
            "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at)"
            " VALUES ('default', %s, 'here:1', 1, now() + interval '1 hour') ON CONFLICT (outbox, shard)"
            " DO UPDATE SET holder = excluded.holder, token = lease.token + 1 RETURNING token",
            holder,
        )
        return holder, token

    def take_over(self) -> int:
        holder, token = self._acquire()
        self._store.set_owner(Owner(holder))
        return token

    def succeed(self) -> None:
        self._acquire()

    def next_event(self) -> Event:
        return self._events.get(timeout=ANSWER_SECONDS_MAX)

    def wait_until_asked(self) -> None:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state = 'idle' AND query LIKE '%%pg_is_in_recovery%%'"
        )
        wait_for(lambda: value(self._sql, query) > 0, timeout_seconds=10, what="the fetch's first answer")

    def is_pending(self, record_id: int) -> bool:
        return bool(
            value(self._sql, "SELECT count(*) FROM outboxd.outbox WHERE id = %s AND published_at IS NULL", record_id)
        )

    def letter(self, record_id: int) -> tuple[int, str] | None:
        row = self._sql.execute(
            "SELECT id, status FROM outboxd.dead_letter WHERE outbox_id = %s", (record_id,)
        ).fetchone()
        return cast("tuple[int, str] | None", row)

    def attempts(self, record_id: int) -> int | None:
        row = self._sql.execute("SELECT attempts FROM outboxd.retry WHERE outbox_id = %s", (record_id,)).fetchone()
        return None if row is None else int(str(row[0]))

    def execute(self, statement: str, *parameters: object) -> None:
        self._sql.execute(statement.encode(), parameters)

    def replay(self, letter_id: int) -> None:
        self._sql.execute("SELECT outboxd.replay(%s::bigint, true)", (letter_id,))

    def take_back(self, letter_id: int) -> None:
        self._sql.execute("UPDATE outboxd.dead_letter SET status = 'dead' WHERE id = %s", (letter_id,))

    def mend(self, letter_id: int, key: str) -> None:
        self._sql.execute("UPDATE outboxd.dead_letter SET key = %s WHERE id = %s", (key, letter_id))

    def discard(self, letter_id: int) -> None:
        self._sql.execute("SELECT outboxd.discard(%s, 'a test')", (letter_id,))

    def pause(self, pattern: str) -> None:
        self._sql.execute("SELECT outboxd.pause(%s, 'a test')", (pattern,))

    def lock(self, record_id: int) -> None:
        locking = self._database.connect(autocommit=False)
        locking.execute("SELECT FROM outboxd.outbox WHERE id = %s FOR UPDATE", (record_id,))
        self._locking.append(locking)

    def pass_time(self, seconds: float) -> None:
        # The database's clock is the one that counts, so it is the database that lets time pass.
        self._sql.execute("SELECT pg_sleep(%s)", (seconds,))

    def close(self) -> None:
        self._store.close()
        for connection in (self._sql, *self._locking):
            connection.close()
        self._engine.dispose()


class _PostgresWriter:
    def __init__(self, connection: psycopg.Connection[Any], outside: psycopg.Connection[Any]) -> None:
        self._connection, self._outside = connection, outside
        self._prepared: str | None = None

    def insert(self, topic: str, key: str | None = "k") -> int:
        row_id: int = value(
            self._connection,
            "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, %s) RETURNING id",
            topic, key, b"x" * PAYLOAD_BYTES,
        )  # fmt: skip
        return row_id

    def prepare(self) -> None:
        self._prepared = f"contract-{uuid.uuid4().hex}"
        self._connection.execute(f"PREPARE TRANSACTION '{self._prepared}'")
        self._connection.commit()

    def end(self, *, commit: bool) -> None:
        if self._prepared is not None:
            self._outside.execute(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{self._prepared}'")
        elif commit:
            self._connection.commit()
        self._connection.close()


class SimulatedBench(StoreBench):
    """The simulation's, without its faults and without a relay."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._timeline.now = 1.0
        self._db = SimulatedDatabase(self._timeline, deletes=False)
        self._events: list[Event] = []
        self._lease = SimpleNamespace(holder="nobody", server=1)
        silent = SimpleNamespace(one_statement=lambda *_: None, before_settle=lambda *_: None, note=lambda *_: None)
        scenario = SimpleNamespace(exactly_once=False)
        world = SimpleNamespace(invariants=silent, history=silent, note_settlement=lambda *_: None, scenario=scenario)
        daemon = SimpleNamespace(
            world=world,
            lease=self._lease,
            name="d1",
            post=self._events.append,
            note_snapshot=lambda *_: None,
            is_alive=True,
            frozen_until=0.0,
            at_step=lambda *_: None,
        )
        self.store = SimulatedStore(cast(Any, daemon), self._db, random.Random(1), StatementFaults())

    def insert(self, topic: str, key: str | None = "k", *, available_in_seconds: float | None = None) -> int:
        writer = self.open()
        available_at = None if available_in_seconds is None else self._timeline.now + available_in_seconds
        row_id = cast(_SimulatedWriter, writer).insert(topic, key, available_at)
        writer.end(commit=True)
        return row_id

    def insert_together(self, rows: int, *, available_in_seconds: float) -> list[int]:
        writer = cast(_SimulatedWriter, self.open())
        available_at = self._timeline.now + available_in_seconds
        ids = [writer.insert("orders", "k", available_at) for _ in range(rows)]
        writer.end(commit=True)
        return ids

    def open(self) -> Writer:
        return _SimulatedWriter(self._db)

    def take_over(self) -> int:
        self._lease.holder = uuid.uuid4().hex
        return self._acquire(self._lease.holder)

    def _acquire(self, holder: str) -> int:
        return self._db.acquire(holder, "d", 3600.0)

    def succeed(self) -> None:
        self._acquire("another")

    def next_event(self) -> Event:
        while not self._events:
            assert self._timeline.step(), "the store never answers"
        return self._events.pop(0)

    def wait_until_asked(self) -> None:
        self._timeline.run_until(self._timeline.now + 0.02, steps_max=1_000)
        assert not self._events

    def is_pending(self, record_id: int) -> bool:
        return record_id in self._db.pending

    def letter(self, record_id: int) -> tuple[int, str] | None:
        found = [(dead.id, dead.status) for dead in self._db.dead.values() if dead.row.id == record_id]
        return found[0] if found else None

    def attempts(self, record_id: int) -> int | None:
        retry = self._db.retry.get(record_id)
        return None if retry is None else retry.attempts

    def replay(self, letter_id: int) -> None:
        self._db.replay(self._db.dead[letter_id])

    def take_back(self, letter_id: int) -> None:
        self._db.dead[letter_id].status = "dead"

    def mend(self, letter_id: int, key: str) -> None:
        letter = self._db.dead[letter_id]
        letter.row = replace(letter.row, key=key)

    def discard(self, letter_id: int) -> None:
        self._db.discard(self._db.dead[letter_id])

    def pause(self, pattern: str) -> None:
        self._db.control[pattern] = (self._timeline.now, "a test")

    def lock(self, record_id: int) -> None:
        self._db.locked_until[record_id] = float("inf")

    def pass_time(self, seconds: float) -> None:
        self._timeline.now += seconds

    def close(self) -> None:
        """Nothing is open."""


class _SimulatedWriter:
    def __init__(self, db: SimulatedDatabase) -> None:
        self._db = db
        self._transaction = db.begin()

    def insert(self, topic: str, key: str | None = "k", available_at: float | None = None) -> int:
        self._db.lock_outbox(self._transaction)
        row_id = self._db.draw_id()
        size_bytes = PAYLOAD_BYTES + len(topic) + len(key or "")
        now = self._db.timeline.now
        self._transaction.rows.append(Row(row_id, topic, key, size_bytes, Kind.GOOD, now, available_at))
        return row_id

    def prepare(self) -> None:
        self._db.prepare(self._transaction)

    def end(self, *, commit: bool) -> None:
        self._db.finish(self._transaction, commit=commit)
