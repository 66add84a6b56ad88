"""How things stand, from the database alone: backlog, retries, dead letters, held keys, who relays, what is paused.

Every count is bounded, so that looking costs the application's database little however large the backlog is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from outboxd.postgres.connections.failures import explained
from outboxd.postgres.operators.dead_letters import DeadLetters
from outboxd.postgres.operators.pauses import PausedTopics, list_pauses
from outboxd.postgres.schema.finite import finite
from outboxd.postgres.schema.sql_text import in_schema
from outboxd.postgres.upkeep.backlog import ROWS_BEYOND
from outboxd.postgres.upkeep.due import OldestDue

COUNTED_MAX = 100_000
HELD_KEYS_LISTED_MAX = 100

# The age is the database's reckoning: `created_at` is whatever time an application wrote, and infinity has no age.
# In the order of ids, and with limits that the planner cannot see, so that it goes by the index of what is pending: it
# may else read the whole table for few rows.
_BACKLOG = f"""
    SELECT count(*) AS pending, max(p.id) AS last_id,
           (SELECT count(*) FROM (SELECT FROM @schema@.retry WHERE outbox = :outbox LIMIT :counted_max + 1) AS b)
               AS in_retry,
           (SELECT {finite("next_attempt_at")} FROM @schema@.retry WHERE outbox = :outbox
             ORDER BY next_attempt_at LIMIT 1) AS next_retry_at,
           (SELECT count(*) FROM (SELECT FROM @schema@.dead_letter
             WHERE outbox = :outbox AND status = 'replaying' LIMIT :counted_max + 1) AS b) AS replaying,
           clock_timestamp() AS now
      FROM (SELECT id FROM @outbox@ WHERE published_at IS NULL ORDER BY id LIMIT (SELECT :counted_max + 1)) AS p"""
_HELD = f"""
    SELECT * FROM (
        (SELECT topic, key, 'dead letter' AS why, {finite("died_at")} AS since, outbox_id, error_code
           FROM @schema@.dead_letter
          WHERE outbox = :outbox AND holds_key AND status IN ('dead', 'replaying') AND key IS NOT NULL
          ORDER BY outbox_id LIMIT :counted_max + 1)
        UNION ALL
        (SELECT o.topic, o.key, 'retry', {finite("r.first_failed_at")}, r.outbox_id, r.error_code
           FROM @schema@.retry AS r CROSS JOIN LATERAL (
                SELECT p.topic, p.key FROM @outbox@ AS p
                 WHERE p.id = r.outbox_id AND p.key IS NOT NULL AND p.published_at IS NULL LIMIT 1) AS o
          WHERE r.outbox = :outbox
          ORDER BY r.outbox_id LIMIT :counted_max + 1)) AS held
     ORDER BY since, outbox_id"""
_HELD_LISTED = f"SELECT held.*, count(*) OVER () AS held_keys FROM ({_HELD}) AS held LIMIT :listed_max"
# Somebody may have ended a lease by hand, before all time.
_LEASE = f"""SELECT daemon, token, {finite("acquired_at")} AS acquired_at, {finite("expires_at")} AS expires_at,
           expires_at > clock_timestamp() AS alive
    FROM @schema@.lease WHERE outbox = :outbox AND shard = 0"""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key whose later rows wait for the row `outbox_id`, and why."""

    topic: str
    key: str
    why: str
    since: datetime
    outbox_id: int
    error_code: str


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """Who relays, or did last. `alive`: the lease has not expired."""

    daemon: str
    token: int
    acquired_at: datetime
    expires_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """How one outbox stands. Counts end at `COUNTED_MAX` + 1, which means more than that; `pending_estimate` is then
    about how many are pending, and else how many.

    `oldest_pending_at` is since when the oldest row is due; None where none is, of the first `COUNTED_MAX`.
    """

    now: datetime
    pending: int
    pending_estimate: int
    oldest_pending_at: datetime | None
    in_retry: int
    next_retry_at: datetime | None
    replaying: int
    dead_by_topic: Mapping[str, int]
    held_keys: int
    held_keys_listed: Sequence[HeldKey]
    lease: LeaseFacts | None
    paused: Sequence[PausedTopics]

    @property
    def dead(self) -> int:
        """Dead letters that are not resolved."""
        return sum(self.dead_by_topic.values())

    @property
    def oldest_pending_age_seconds(self) -> float:
        """For how long the oldest pending row has been due, by the database's clock; 0 where none is due."""
        at = self.oldest_pending_at
        return 0.0 if at is None else max(0.0, (self.now - at).total_seconds())


def look(engine: Engine, schema: str, table: str, outbox: str) -> Overview:
    """How this outbox stands now, in a few short statements."""
    values: dict[str, Any] = {"outbox": outbox, "counted_max": COUNTED_MAX, "listed_max": HELD_KEYS_LISTED_MAX}
    with explained(), engine.connect() as connection:
        backlog = connection.execute(in_schema(_BACKLOG, schema, table=table), values).one()
        rows_beyond = 0
        if backlog.pending > COUNTED_MAX:
            beyond = in_schema(ROWS_BEYOND, schema, table=table)
            rows_beyond = connection.execute(beyond, {"last_id": backlog.last_id}).scalar_one()
        held = connection.execute(in_schema(_HELD_LISTED, schema, table=table), values).all()
        lease = connection.execute(in_schema(_LEASE, schema), values).one_or_none()
    oldest_pending_at = OldestDue(engine, schema, table).at()
    by_topic: dict[str, int] = {}
    for group in DeadLetters(engine, schema, outbox).summary():
        by_topic[group.topic] = by_topic.get(group.topic, 0) + group.count
    return Overview(
        pending=backlog.pending,
        pending_estimate=backlog.pending + rows_beyond,
        in_retry=backlog.in_retry,
        next_retry_at=backlog.next_retry_at,
        replaying=backlog.replaying,
        now=backlog.now,
        oldest_pending_at=oldest_pending_at,
        dead_by_topic=by_topic,
        held_keys=held[0].held_keys if held else 0,
        held_keys_listed=[HeldKey(*tuple(row)[:-1]) for row in held],
        lease=None if lease is None else LeaseFacts(**lease._mapping),
        paused=list_pauses(engine, schema, outbox),
    )
