"""Rows and their transactions: late, prepared, rolled back, poisonous, paused, replayed, too many of one key."""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg

from tests.chaos.campaign.checker import POISON_PREFIX, wait_for_count
from tests.chaos.campaign.faults.kind import Kind, Run, Seen, kinds
from tests.chaos.campaign.load import DRAWN_PREFIX, LATE_PREFIX
from tests.chaos.campaign.stage import COMPACTED, LIMITED, PLAIN, STRICT, NotObservedError, Stage

DELIVERY_SECONDS = 90.0
"""How long rows may take while brokers, servers and daemons come and go."""
_ONE = "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, convert_to(%s, 'UTF8')) RETURNING id"
_MANY = (
    "INSERT INTO outboxd.outbox (topic, key, payload)"
    " SELECT %s, %s || i %% %s, convert_to(repeat(md5(i::text), 4), 'UTF8')"
    " FROM generate_series(1, %s) AS i RETURNING id"
)


def long_transaction(stage: Stage, dice: random.Random) -> Seen:
    """A low id whose transaction stays open while thousands of newer rows go."""
    with stage.sql(autocommit=False) as connection:
        row_id = _id(connection.execute(_ONE, (dice.choice(PLAIN), f"{LATE_PREFIX}{dice.randrange(30)}", "long")))
        rows = stage.stream.rows
        stage.hold(dice.uniform(3.0, 15.0))
        passed = stage.stream.rows - rows
        early = stage.stream.count(row_id)
        connection.commit()
    if early or not passed:
        raise NotObservedError(f"seen before its commit: {early}; rows that went meanwhile: {passed}")
    return {"rows_that_went_meanwhile": passed, "delivered_after_commit_seconds": _delivered(stage, [row_id])}


def prepared_transaction(stage: Stage, dice: random.Random) -> Seen:
    """The same with PREPARE TRANSACTION, which outlives its session and the server."""
    name = f"campaign-{dice.getrandbits(48):x}"
    with stage.sql(autocommit=False) as connection:
        row_id = _id(connection.execute(_ONE, (dice.choice(PLAIN), f"{LATE_PREFIX}{dice.randrange(30)}", "prepared")))
        connection.execute(f"PREPARE TRANSACTION '{name}'")
        connection.commit()
    try:
        rows = stage.stream.rows
        stage.hold(dice.uniform(3.0, 10.0))
        passed, early = stage.stream.rows - rows, stage.stream.count(row_id)
        with stage.postgres.patient() as connection:
            open_ones = _id(connection.execute("SELECT count(*) FROM pg_prepared_xacts WHERE gid = %s", (name,)))
    finally:
        with stage.postgres.patient() as connection:
            connection.execute(f"COMMIT PREPARED '{name}'")
    if early or not passed or not open_ones:
        raise NotObservedError(f"seen before its commit: {early}; rows that went: {passed}; open: {open_ones}")
    return {"rows_that_went_meanwhile": passed, "delivered_after_commit_seconds": _delivered(stage, [row_id])}


def mass_rollback(stage: Stage, dice: random.Random) -> Seen:
    """Thousands of rows that never were: a gap in the ids, and no ghost."""
    with stage.sql(autocommit=False) as connection:
        ids = [row[0] for row in connection.execute(_MANY, (dice.choice(PLAIN), "rolled-", 50, 5_000)).fetchall()]
        stage.hold(dice.uniform(0.0, 2.0))
        connection.rollback()
    rows = stage.stream.rows
    stage.until(lambda: stage.stream.rows > rows, 30, "newer rows went past the gap")
    ghosts = sum(stage.stream.count(row_id) for row_id in ids)
    return {"rolled_back": len(ids), "ghosts": ghosts}


def hot_key(stage: Stage, dice: random.Random) -> Seen:
    """Hundreds of rows of one key in one transaction."""
    with stage.sql() as connection:
        key = f"hot-{dice.getrandbits(32):x}-"
        ids = [row[0] for row in connection.execute(_MANY, (dice.choice(PLAIN), key, 1, 800)).fetchall()]
    return {"rows": len(ids), "delivered_after_seconds": _delivered(stage, ids)}


def large_rows(stage: Stage, dice: random.Random) -> Seen:
    """Rows just below the limit of a message."""
    with stage.sql() as connection:
        rows = connection.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload)"
            " SELECT %s, 'large-' || i, convert_to(repeat('x', 900000), 'UTF8')"
            " FROM generate_series(1, 12) AS i RETURNING id",
            (dice.choice(PLAIN),),
        ).fetchall()
    ids = [row[0] for row in rows]
    return {"rows": len(ids), "bytes": 900_000 * len(ids), "delivered_after_seconds": _delivered(stage, ids)}


# --- Poison


def poison_oversize(stage: Stage, dice: random.Random) -> Seen:
    """Larger than the client takes."""
    return _poisoned(stage, dice, "MSG_SIZE_TOO_LARGE", dice.choice(PLAIN), payload_bytes=1_100_000)


def poison_over_topic_limit(stage: Stage, dice: random.Random) -> Seen:
    """Larger than its topic takes: the broker refuses the whole batch."""
    return _poisoned(stage, dice, "MSG_SIZE_TOO_LARGE", LIMITED, payload_bytes=25_000)


def poison_topic_name(stage: Stage, dice: random.Random) -> Seen:
    """No legal name."""
    return _poisoned(stage, dice, "INVALID_TOPIC", dice.choice(["illegal name!", "", "x" * 250, "näme"]))


def poison_partition(stage: Stage, dice: random.Random) -> Seen:
    """A partition that does not exist."""
    return _poisoned(stage, dice, "UNKNOWN_PARTITION", dice.choice(PLAIN), partition=dice.choice([-5, 77, 9_999]))


def poison_headers(stage: Stage, dice: random.Random) -> Seen:
    """Headers of another shape, or with names that are taken."""
    headers, code = dice.choice(
        [('"text"', "INVALID_HEADERS"), ('[["one"]]', "INVALID_HEADERS"), ('{"outbox-id": "7"}', "RESERVED_HEADER")]
    )
    return _poisoned(stage, dice, code, dice.choice(PLAIN), headers=headers)


def poison_without_key(stage: Stage, dice: random.Random) -> Seen:
    """No key, on a compacted topic: the broker refuses the whole batch."""
    return _poisoned(stage, dice, "INVALID_RECORD|MISSING_KEY", COMPACTED, keyed=False)


def poison_timestamp(stage: Stage, dice: random.Random) -> Seen:
    """From before 1970."""
    return _poisoned(stage, dice, "INVALID_TIMESTAMP", dice.choice(PLAIN), created_at="1969-12-31 23:59:59+00")


def _poisoned(
    stage: Stage,
    dice: random.Random,
    codes: str,
    topic: str,
    *,
    payload_bytes: int = 10,
    partition: int | None = None,
    headers: str = "{}",
    keyed: bool = True,
    created_at: str | None = None,
) -> Seen:
    rows = dice.randint(1, 4)
    with stage.sql() as connection:
        found = connection.execute(
            "WITH fresh AS (INSERT INTO outboxd.outbox (topic, key, payload, partition, headers, created_at)"
            " SELECT %s, CASE WHEN %s THEN %s || i END, convert_to(repeat('x', %s), 'UTF8'), %s, %s::jsonb,"
            " coalesce(%s::timestamptz, now()) FROM generate_series(1, %s) AS i RETURNING id)"
            " INSERT INTO public.poison SELECT id, %s, %s FROM fresh RETURNING id",
            (
                topic, keyed, f"{POISON_PREFIX}{dice.getrandbits(32):x}-", payload_bytes, partition, headers,
                created_at, rows, codes.split("|", maxsplit=1)[0], codes,
            ),
        ).fetchall()  # fmt: skip
    ids = [row[0] for row in found]
    began_at = time.monotonic()

    def dead() -> list[Any]:
        with stage.sql() as connection:
            letters = connection.execute(
                "SELECT error_code, attempts FROM outboxd.dead_letter WHERE outbox_id = ANY(%s)", (ids,)
            ).fetchall()
        return letters if len(letters) == len(ids) else []

    letters = stage.until(dead, DELIVERY_SECONDS, "all of them are dead letters", poll=0.2)
    return {
        "rows": len(ids),
        "codes": sorted({code for code, _ in letters}),
        "attempts_max": max(attempts for _, attempts in letters),
        "dead_after_seconds": round(time.monotonic() - began_at, 2),
    }


# --- Operators


def replay(stage: Stage, _dice: random.Random) -> Seen:
    """Dead letters are mended and sent again."""
    with stage.sql() as connection:
        chosen = connection.execute(
            "SELECT id, outbox_id FROM outboxd.dead_letter WHERE status = 'dead' AND created_at > '2000-01-01'"
            " ORDER BY random() LIMIT 5"
        ).fetchall()
        if not chosen:
            raise NotObservedError("there is no dead letter")
        stage.edited |= {outbox_id for _, outbox_id in chosen}
        letters = [letter for letter, _ in chosen]
        connection.execute(
            "UPDATE outboxd.dead_letter SET topic = %s, key = coalesce(key, 'poison-mended'), payload = 'mended',"
            " headers = '{}', partition = NULL WHERE id = ANY(%s) AND status = 'dead'",
            (STRICT, letters),
        )
        taken = _id(connection.execute("SELECT outboxd.replay(%s::bigint[], true, 'mended')", (letters,)))
    _resolved(stage, letters, "replayed")
    ids = [outbox_id for _, outbox_id in chosen]
    return {"replayed": taken, "seen_again_after_seconds": _delivered(stage, ids)}


def discard(stage: Stage, _dice: random.Random) -> Seen:
    """Dead letters are given up."""
    with stage.sql() as connection:
        letters = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM outboxd.dead_letter WHERE status = 'dead' ORDER BY random() LIMIT 2"
            ).fetchall()
        ]
        if not letters:
            raise NotObservedError("there is no dead letter")
        connection.execute("SELECT outboxd.discard(%s::bigint[], 'a campaign')", (letters,))
    _resolved(stage, letters, "discarded")
    return {"discarded": len(letters)}


def topic_paused(stage: Stage, dice: random.Random) -> Seen:
    """A topic is paused by SQL, and resumed."""
    topic = dice.choice(PLAIN)
    with stage.sql() as connection:
        connection.execute("SELECT outboxd.pause(%s, 'a campaign')", (topic,))
    began_at = time.time()
    try:
        paused = stage.event(began_at, "topic_paused", 45, topic=topic)
        with stage.sql() as connection:
            ids = [row[0] for row in connection.execute(_MANY, (topic, "paused-", 10, 100)).fetchall()]
        stage.hold(dice.uniform(1.0, 5.0))
        early = sum(stage.stream.count(row_id) for row_id in ids)
    finally:
        with stage.postgres.patient() as connection:
            connection.execute("SELECT outboxd.resume(%s)", (topic,))
    if early:
        raise NotObservedError(f"{early} rows of the paused topic went")
    return {
        "paused_after_seconds": round(paused.at - began_at, 2),
        "rows_kept": len(ids),
        "delivered_after_resume_seconds": _delivered(stage, ids),
    }


def delayed_rows(stage: Stage, dice: random.Random) -> Seen:
    """Rows that are not to go before their time."""
    seconds = dice.uniform(2.0, 8.0)
    with stage.sql() as connection:
        rows = connection.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload, available_at) SELECT %s, %s || i, 'delayed',"
            " clock_timestamp() + %s * interval '1 second' FROM generate_series(1, 50) AS i RETURNING id",
            (dice.choice(PLAIN), f"{DRAWN_PREFIX}delayed-", seconds),
        ).fetchall()
    ids = [row[0] for row in rows]
    stage.hold(0.8 * seconds)
    early = sum(stage.stream.count(row_id) for row_id in ids)
    if early:
        raise NotObservedError(f"{early} rows went before their time")
    return {"delay_seconds": round(seconds, 1), "early": early, "delivered_after_seconds": _delivered(stage, ids)}


# --- Inside


def _resolved(stage: Stage, letters: list[int], status: str) -> None:
    stage.until(
        lambda: (
            not stage.value(
                "SELECT count(*) FROM outboxd.dead_letter WHERE id = ANY(%s) AND status <> %s", letters, status
            )
        ),
        DELIVERY_SECONDS,
        f"they are {status}",
        poll=0.2,
    )


def _delivered(stage: Stage, ids: list[int]) -> float:
    try:
        return round(wait_for_count(stage.stream, ids, DELIVERY_SECONDS, lambda: None), 2)
    except TimeoutError as late:
        raise NotObservedError(str(late)) from late


def _id(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])


_POISONS: tuple[Run, ...] = (
    poison_oversize, poison_over_topic_limit, poison_topic_name, poison_partition, poison_headers, poison_without_key,
    poison_timestamp,
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    *kinds("own", long_transaction, prepared_transaction, mass_rollback, hot_key, delayed_rows),
    *kinds("own", large_rows, weight=0.4),
    *kinds("own", *_POISONS, weight=0.6),
    *kinds("letters", replay, weight=1.2),
    *kinds("letters", discard, weight=0.5),
    *kinds("own", topic_paused),
)
