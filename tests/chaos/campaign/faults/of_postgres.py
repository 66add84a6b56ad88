"""PostgreSQL restarted, frozen, killed and followed by its standby; its disk full, its table locked."""

from __future__ import annotations

import contextlib
import random
import signal
import time

import psycopg

from tests.chaos.campaign.faults.kind import Kind, Seen, kinds
from tests.chaos.campaign.servers import SSL_REQUEST, DiskMissingError, Postgres, ping
from tests.chaos.campaign.stage import NotObservedError, Stage
from tests.support.children import wait_for

SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'outboxd%' AND datname = current_database()"


def postgres_restarted(stage: Stage, _dice: random.Random) -> Seen:
    """Stopped fast, and started."""
    return _restarted(stage, "fast")


def postgres_crashed(stage: Stage, _dice: random.Random) -> Seen:
    """Stopped as at once as by a power cut, and recovered."""
    return _restarted(stage, "immediate")


def _restarted(stage: Stage, mode: str) -> Seen:
    postgres = stage.postgres
    began_at, pid = time.time(), postgres.primary.pid
    sessions = _sessions(stage)
    stage.stream.blame(f"postgres-{mode}")
    try:
        postgres.keeper.do(postgres.primary.stop, mode)
        answer = ping(postgres.primary.port, SSL_REQUEST, 0.5)
    finally:
        postgres.keeper.do(postgres.primary.start)
    if answer is not None or postgres.primary.pid == pid:
        raise NotObservedError("it answered all the time")
    away = time.time() - began_at
    return {"away_seconds": round(away, 2), "sessions_lost": len(sessions), **_goes_on(stage, began_at)}


def postgres_frozen(stage: Stage, dice: random.Random) -> Seen:
    """SIGSTOP to the server and all its backends."""
    began_at = time.time()
    stage.stream.blame("postgres-frozen")
    stage.postgres.primary.signal(signal.SIGSTOP)
    try:
        answer = ping(stage.postgres.primary.port, SSL_REQUEST, 0.5)
        stage.hold(dice.uniform(0.3, 5.0))
    finally:
        stage.postgres.primary.signal(signal.SIGCONT)
    if answer is not None:
        raise NotObservedError("it answered while it was frozen")
    return {"frozen_seconds": round(time.time() - began_at, 2), **_goes_on(stage, began_at)}


def failover(stage: Stage, _dice: random.Random) -> Seen:
    """The primary is killed outright, and its synchronous standby takes its place; a new standby is made."""
    postgres = stage.postgres
    _guard(postgres)
    # Commits wait for the standby: one that returns now is there, and with it all before it.
    stage.value("SELECT txid_current()")
    began_at, sessions = time.time(), _sessions(stage)
    stage.stream.blame("failover")
    postgres.keeper.do(postgres.primary.kill)
    postgres.promote()
    promoted_at = time.time()
    try:
        seen = _goes_on(stage, began_at)
    finally:
        _attach(postgres)
    return {
        "promoted_after_seconds": round(promoted_at - began_at, 2),
        "timeline": postgres.timeline,
        "sessions_lost": len(sessions),
        "standby_again_after_seconds": round(time.time() - began_at, 2),
        **seen,
    }


def disk_full(stage: Stage, dice: random.Random) -> Seen:
    """Nothing is left of the disk of the primary; it may panic, and is started again once there is room."""
    postgres = stage.postgres
    node, began_at = postgres.primary, time.time()
    try:
        taken = node.disk.fill()
    except DiskMissingError as missing:
        raise NotObservedError(str(missing)) from missing
    stage.stream.blame("disk-full")
    refused = ""
    try:
        deadline = time.monotonic() + 8
        while not refused and time.monotonic() < deadline:
            refused = _try_to_write(stage)
        stage.hold(dice.uniform(0.5, 3.0))
    finally:
        node.disk.empty()
    panicked = not node.is_running
    if panicked:
        postgres.keeper.do(node.start)
    if not refused:
        raise NotObservedError("it wrote on")
    return {"bytes_taken": taken, "refused": refused, "panicked": panicked, **_goes_on(stage, began_at)}


def _try_to_write(stage: Stage) -> str:
    """Write a megabyte; return the refusal, if it is one for want of room."""
    try:
        with stage.sql(statement_seconds=3, autocommit=False) as connection:
            connection.execute(
                "CREATE TEMPORARY TABLE filling AS SELECT repeat(md5(i::text), 100) FROM generate_series(1, 20000) AS i"
            )
            connection.rollback()
    except psycopg.errors.DiskFull as full:
        return str(full).splitlines()[0][:60].split('"')[0].strip()
    except psycopg.OperationalError:
        return "the server ended" if not stage.postgres.primary.is_running else ""
    except psycopg.Error:
        return ""
    return ""


def sessions_terminated(stage: Stage, dice: random.Random) -> Seen:
    """pg_terminate_backend on some of the daemons' sessions."""
    began_at = time.time()
    found = _sessions(stage)
    if not found:
        raise NotObservedError("no daemon is connected")
    chosen = dice.sample(found, dice.randint(1, len(found)))
    stage.stream.blame("sessions-terminated")
    with stage.sql() as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 2000) FROM unnest(%s::int[]) AS pid", (chosen,))
    left = set(_sessions(stage)) & set(chosen)
    if left:
        raise NotObservedError(f"{len(left)} of {len(chosen)} sessions are still there")
    return {"sessions_lost": len(chosen), "of": len(found), "daemons": stage.reactions(began_at)}


# --- The table


def table_locked(stage: Stage, dice: random.Random) -> Seen:
    """ACCESS EXCLUSIVE for a while: reads and settlements wait or time out."""
    began_at = time.time()
    with stage.sql(autocommit=False) as connection:
        _lock(connection, "LOCK TABLE outboxd.outbox IN ACCESS EXCLUSIVE MODE")
        locked_at = time.time()
        waiting = 0
        while time.time() - locked_at < dice.uniform(0.8, 3.0):
            stage.hold(0.1)
            waiting = max(waiting, stage.value(f"SELECT count(*) FROM ({SESSIONS} AND wait_event_type = 'Lock') AS w"))
        gap = stage.stream.longest_gap(locked_at, time.time())
        connection.rollback()
    if not waiting:
        raise NotObservedError("no session of a daemon waited")
    return {
        "waiting_sessions": waiting,
        "longest_gap_of_deliveries_seconds": round(gap, 2),
        "daemons": stage.reactions(began_at),
    }


def column_added(stage: Stage, _dice: random.Random) -> Seen:
    """A migration of the application: a column is added to the outbox under load, and dropped."""
    with stage.sql() as connection:
        before = _columns(connection)
        _lock(connection, "ALTER TABLE outboxd.outbox ADD COLUMN note text DEFAULT 'fresh'")
        after = _columns(connection)
        stage.hold(1.0)
        rows = stage.stream.rows
        stage.until(lambda: stage.stream.rows > rows, 20, "records come with the new column")
    with stage.postgres.patient() as connection:
        _lock(connection, "ALTER TABLE outboxd.outbox DROP COLUMN IF EXISTS note")
    if after <= before:
        raise NotObservedError("no column more")
    return {"columns": [before, after]}


def table_rewritten(stage: Stage, _dice: random.Random) -> Seen:
    """VACUUM FULL: the table gets another file under load."""
    node = "SELECT pg_relation_filenode('outboxd.outbox')"
    with stage.sql(statement_seconds=60) as connection:
        before = stage.value(node)
        began_at = time.time()
        _lock(connection, "VACUUM FULL outboxd.outbox")
        after = stage.value(node)
    if after == before:
        raise NotObservedError("the same file")
    return {"seconds": round(time.time() - began_at, 2), "daemons": stage.reactions(began_at)}


def vacuum_held_back(stage: Stage, dice: random.Random) -> Seen:
    """A forgotten snapshot: nothing that died since can be removed."""
    with stage.sql(autocommit=False, application="forgotten") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM outboxd.lease")
        began_at = time.time()
        stage.hold(dice.uniform(5.0, 20.0))
        age = stage.value("SELECT max(age(backend_xmin)) FROM pg_stat_activity WHERE application_name = 'forgotten'")
        connection.rollback()
    if not age:
        raise NotObservedError("no transaction happened meanwhile")
    return {"transactions_held_back": age, "seconds": round(time.time() - began_at, 1)}


def _columns(connection: psycopg.Connection[object]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM pg_attribute"
        " WHERE attrelid = 'outboxd.outbox'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchone()
    return int(str(row[0])) if isinstance(row, tuple) else 0


def _lock(connection: psycopg.Connection[object], statement: str) -> None:
    """Get a strong lock in short tries, as a migration should: everybody waits behind one that waits."""
    for attempt in range(40):
        connection.execute("SELECT set_config('lock_timeout', '300ms', false)")
        if not connection.autocommit:
            connection.commit()
        try:
            connection.execute(statement)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            connection.rollback()
            time.sleep(0.1 + 0.02 * attempt)
        else:
            return
    raise NotObservedError("the lock was never free")


# --- Looking


def _sessions(stage: Stage) -> list[int]:
    with stage.sql() as connection:
        return [row[0] for row in connection.execute(SESSIONS).fetchall()]


def _goes_on(stage: Stage, began_at: float) -> Seen:
    """Wait until it takes writes and the daemons are back; tell what they said."""
    stage.until(lambda: stage.value("SELECT NOT pg_is_in_recovery()"), 60, "a server takes writes")
    with contextlib.suppress(NotObservedError):
        stage.owner(20)
    return {
        "longest_gap_of_deliveries_seconds": round(stage.stream.longest_gap(began_at, time.time()), 2),
        "daemons": stage.reactions(began_at),
    }


def _guard(postgres: Postgres) -> None:
    """Have a standby that is in step, before the primary may die."""
    try:
        wait_for(postgres.is_in_step, timeout_seconds=15, what="the standby is in step")
    except (TimeoutError, psycopg.Error) as late:
        raise NotObservedError(f"no standby in step: {late}") from late


def _attach(postgres: Postgres) -> None:
    for attempt in range(5):
        try:
            postgres.attach_standby()
        except (psycopg.Error, RuntimeError, TimeoutError):
            if attempt == 4:
                raise
            time.sleep(1.0)
        else:
            return


KINDS: tuple[Kind, ...] = (
    *kinds("postgres", postgres_restarted, postgres_crashed, postgres_frozen, hinders_lease=True),
    *kinds("postgres postgres-net table", failover, weight=0.5, hinders_lease=True),
    *kinds("postgres table", disk_full, weight=0.6, hinders_lease=True),
    *kinds("own", sessions_terminated, weight=1.5, hinders_lease=True),
    *kinds("table", table_locked, column_added, weight=0.8, hinders_lease=True),
    *kinds("table", table_rewritten, weight=0.4, hinders_lease=True),
    *kinds("own", vacuum_held_back, weight=0.6),
)
