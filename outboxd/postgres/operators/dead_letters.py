"""Dead letters for those who mend them: groups, rows, one in full; replay, discard and export in bounded batches.

What changes anything goes through the functions of the schema (`replay`, `discard`), so that psql, the command line and
the page follow the same rules. Every statement is a transaction of its own and is bounded, so none of them gets in the
relay's way for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import Engine, Row
from sqlalchemy.exc import DBAPIError

from outboxd.errors import UsageError
from outboxd.policy.rows.records import FIRST_ID, ID_MAX
from outboxd.postgres.connections.failures import told
from outboxd.postgres.operators.dead_letter_rows import (
    RECENT_SECONDS,
    Filters,
    Group,
    Letter,
    Obstacle,
    Taken,
    WholeLetter,
)
from outboxd.postgres.schema.finite import finite
from outboxd.postgres.schema.sql_text import in_schema

BATCH_ROWS = 1000
#: Ids that a bulk replay or discarding looks up at a time: finding them is what costs, and ids are small.
PAGE_ROWS = 50_000
#: Payloads that an export reads at a time; one larger payload is read alone.
EXPORT_BATCH_BYTES = 8 << 20

# `created_at` is what the application wrote: Python's dates hold neither infinity nor years before 1 or beyond 9999.
# The other times are the database's own, or what people made of them by hand, as to keep a letter beyond its retention.
_CREATED_AT = """CASE WHEN isfinite(d.created_at) THEN
    to_char(d.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
    || CASE WHEN extract(year FROM d.created_at AT TIME ZONE 'UTC') < 0 THEN ' BC' ELSE '' END
    ELSE CAST(d.created_at AS text) END AS created_at"""
_COLUMNS = f"""d.id, d.outbox_id, d.event_id, d.topic, d.key, octet_length(d.payload) AS payload_bytes,
    d.headers::text AS headers, d.partition, {_CREATED_AT}, d.attempts, d.reason, d.error_code, d.error_message,
    {finite("d.first_failed_at")} AS first_failed_at, {finite("d.died_at")} AS died_at, d.daemon, d.holds_key, d.status,
    CASE WHEN d.resolved_at IS NOT NULL THEN {finite("d.resolved_at")} END AS resolved_at, d.resolved_by, d.note"""

# As the view `dead_letter_summary`, with conditions: grouped by hashes, and the names looked up by the sample.
_SUMMARY = f"""
    SELECT named.topic, named.reason, named.error_code, kinds.count, {finite("kinds.first")} AS first,
           {finite("kinds.last")} AS last, kinds.keys, named.id AS sample_id, kinds.recent
      FROM (SELECT kind, sum(rows)::bigint AS count, min(first) AS first, max(last) AS last, count(key_hash) AS keys,
                   max(newest) AS sample, sum(recent)::bigint AS recent
              FROM (SELECT hashtextextended(d.reason, hashtextextended(d.error_code, hashtextextended(d.topic, 0)))
                               AS kind,
                           hashtextextended(d.key, 0) AS key_hash, count(*) AS rows, min(d.died_at) AS first,
                           max(d.died_at) AS last, max(d.id) AS newest,
                           count(*) FILTER (WHERE d.died_at > now() - make_interval(secs => :recent_seconds)) AS recent
                      FROM @schema@.dead_letter d WHERE @where@ GROUP BY 1, 2) AS by_key
             GROUP BY kind) AS kinds
      JOIN @schema@.dead_letter AS named ON named.id = kinds.sample
     ORDER BY kinds.count DESC, named.topic, named.reason, named.error_code"""
_LIST = f"SELECT {_COLUMNS} FROM @schema@.dead_letter d WHERE @where@ ORDER BY d.died_at DESC, d.id DESC LIMIT :limit"
_ONE = f"SELECT {_COLUMNS}, d.payload FROM @schema@.dead_letter d WHERE d.id = :id AND d.outbox = :outbox"
_DEAD_IDS = """SELECT d.id FROM @schema@.dead_letter d
    WHERE d.id = ANY (CAST(:ids AS bigint[])) AND d.outbox = :outbox AND d.status = 'dead' ORDER BY d.id"""
# In the order of the outbox, so that no batch overtakes an earlier row of its key; what dies meanwhile is not chased.
_PAGE = """SELECT d.id, d.outbox_id FROM @schema@.dead_letter d
    WHERE @where@ AND d.status = 'dead' AND d.died_at <= :until AND (d.outbox_id, d.id) > (:after_outbox_id, :after_id)
    ORDER BY d.outbox_id, d.id LIMIT :limit"""
_OBSTACLES = (
    "SELECT id, outbox_id, topic, newer_id, obstacle AS kind FROM @schema@.replay_obstacles(CAST(:ids AS bigint[]))"
)
_REPLAY = "SELECT @schema@.replay(CAST(:ids AS bigint[]), CAST(:force AS boolean), CAST(:note AS text))"
_DISCARD = "SELECT @schema@.discard(CAST(:ids AS bigint[]), CAST(:note AS text))"
_RELAYED = """SELECT EXISTS (SELECT FROM @schema@.lease AS l
    WHERE l.outbox = :outbox AND l.expires_at > clock_timestamp())"""
_EXPORT_NEXT = """SELECT d.id, coalesce(octet_length(d.payload), 0) AS size_bytes FROM @schema@.dead_letter d
    WHERE @where@ AND d.id > :after_id ORDER BY d.id LIMIT :limit"""
_EXPORT_ROWS = f"""SELECT {_COLUMNS}, d.payload FROM @schema@.dead_letter d
    WHERE @where@ AND d.id = ANY (CAST(:ids AS bigint[])) ORDER BY d.id"""

_NOT_IN_PREREQUISITE_STATE = "55000"

ALL_DEAD = Filters()


class DeadLetters:
    """The dead letters of one outbox. Errors are those of `outboxd.errors`, in sentences."""

    def __init__(self, engine: Engine, schema: str, outbox: str) -> None:
        """`outbox` is the configured name; `engine` is in autocommit mode."""
        self._engine = engine
        self._schema = schema
        self._outbox = outbox

    # --- Looking

    def summary(self, filters: Filters = ALL_DEAD) -> list[Group]:
        """The groups by topic, reason and error code, largest first."""
        where, values = filters.clauses()
        rows = self._rows(_SUMMARY, where, **values, recent_seconds=RECENT_SECONDS)
        return [Group(**row._mapping) for row in rows]

    def list(self, filters: Filters = ALL_DEAD, limit: int = 50) -> Sequence[Letter]:
        """The newest dead letters, at most `limit`."""
        where, values = filters.clauses()
        return [Letter(**row._mapping) for row in self._rows(_LIST, where, **values, limit=limit)]

    def show(self, letter_id: int) -> WholeLetter | None:
        """One dead letter in full, and whether a replay needs force; None where there is none of this id."""
        rows = self._rows(_ONE, id=letter_id)
        if not rows:
            return None
        obstacles = self.obstacles([letter_id])
        return _whole(rows[0], obstacles[0] if obstacles else None)

    def now(self) -> datetime:
        """The database's time, by which all others here are told."""
        found: datetime = self._rows("SELECT clock_timestamp() AS now")[0].now
        return found

    def are_relayed(self) -> bool:
        """Whether a daemon relays their outbox now, so that a replay goes."""
        return bool(self._rows(_RELAYED)[0][0])

    def obstacles(self, ids: Sequence[int]) -> Sequence[Obstacle]:
        """Those of these dead letters whose replay could deliver an older row after a newer one of its key, and why."""
        return [Obstacle(**row._mapping) for row in self._rows(_OBSTACLES, ids=ids)] if ids else []

    def export(self, filters: Filters = ALL_DEAD) -> Iterator[WholeLetter]:
        """Every dead letter in full, by id. Memory is bounded, and no transaction stays open meanwhile."""
        where, values = filters.clauses()
        after_id = FIRST_ID
        while sized := self._rows(_EXPORT_NEXT, where, **values, after_id=after_id, limit=BATCH_ROWS):
            for ids in _by_size(sized):
                for row in self._rows(_EXPORT_ROWS, where, **values, ids=ids):
                    yield _whole(row, None)
            after_id = sized[-1].id

    # --- Changing

    def replay(
        self, ids: Sequence[int], *, force: bool = False, note: str | None = None, who: str = "", dry_run: bool = False
    ) -> Taken:
        """Send these again, in place; those that need force are left as they are and named.

        Args:
            ids: dead letters; what is not `dead` is skipped.
            force: also those whose key has newer published rows.
            note: why.
            who: the person who asked; kept with the dead letter like the note.
            dry_run: only say what would be done.
        """
        return self._replay(ids, ID_MAX, force=force, note=note, who=who, dry_run=dry_run)

    def replay_where(
        self,
        filters: Filters,
        *,
        limit: int | None = None,
        batch_rows: int = BATCH_ROWS,
        force: bool = False,
        note: str | None = None,
        who: str = "",
        dry_run: bool = False,
    ) -> Iterator[Taken]:
        """`replay` of all that match, oldest first, until `limit` are taken: one `Taken` after each batch of
        `batch_rows`. Those that need force are passed over, and do not count: else the oldest would stop all others.
        """
        replay = partial(self._replay, force=force, note=note, who=who, dry_run=dry_run)
        return self._in_batches(filters, limit, batch_rows, replay)

    def discard(self, ids: Sequence[int], *, note: str | None = None, who: str = "", dry_run: bool = False) -> Taken:
        """Give these up: they are never sent, and the rows that their keys hold may go. Arguments as of `replay`."""
        return self._discard(ids, ID_MAX, note=note, who=who, dry_run=dry_run)

    def discard_where(
        self,
        filters: Filters,
        *,
        limit: int | None = None,
        batch_rows: int = BATCH_ROWS,
        note: str | None = None,
        who: str = "",
        dry_run: bool = False,
    ) -> Iterator[Taken]:
        """`discard` of all that match, as `replay_where`."""

        def discard(ids: Sequence[int], at_most: int) -> Taken:
            return self._discard(ids, at_most, note=note, who=who, dry_run=dry_run)

        return self._in_batches(filters, limit, batch_rows, discard)

    # --- Inside

    def _discard(self, ids: Sequence[int], at_most: int, *, note: str | None, who: str, dry_run: bool) -> Taken:
        """Discard the first of these that are dead still, and look at none of the others once they are so many."""
        dead = self._dead_of(ids)
        chosen = dead[:at_most]
        skipped = len(set(ids)) - len(dead)
        if chosen and not dry_run:
            taken = self._changed(_DISCARD, ids=chosen, note=signed(note, who))
            return Taken(taken, skipped=skipped + len(chosen) - taken, ids=chosen)
        return Taken(len(chosen), skipped=skipped, ids=chosen)

    def _dead_of(self, ids: Sequence[int]) -> Sequence[int]:
        """Those of them that are dead, in their order."""
        found = {row.id for row in self._rows(_DEAD_IDS, ids=ids)}
        return [each for each in dict.fromkeys(ids) if each in found]

    def _replay(
        self, ids: Sequence[int], at_most: int, *, force: bool, note: str | None, who: str, dry_run: bool
    ) -> Taken:
        """Replay the first of these that may go, and look no further once they are so many."""
        dead = self._dead_of(ids)
        skipped = len(set(ids)) - len(dead)
        obstacles = {} if force else {obstacle.id: obstacle for obstacle in self.obstacles(dead)}
        chosen = [each for each in dead if each not in obstacles][:at_most]
        if len(chosen) == at_most:
            dead = dead[: dead.index(chosen[-1])]
        refused = tuple(obstacles[each] for each in dead if each in obstacles)
        if chosen and not dry_run:
            taken = self._changed(_REPLAY, ids=chosen, force=force, note=signed(note, who))
            return Taken(taken, refused, skipped + len(chosen) - taken, chosen)
        return Taken(len(chosen), refused, skipped, chosen)

    def _in_batches(
        self, filters: Filters, limit: int | None, batch_rows: int, change: Callable[[Sequence[int], int], Taken]
    ) -> Iterator[Taken]:
        """Give batches to `change(ids, at_most)`, oldest first, until `limit` are taken."""
        where, values = filters.clauses()
        until = self.now()
        after, left = (FIRST_ID, FIRST_ID), ID_MAX if limit is None else limit
        while page := self._rows(
            _PAGE, where, **values, until=until, after_outbox_id=after[0], after_id=after[1],
            limit=min(PAGE_ROWS, max(left, batch_rows)),
        ):  # fmt: skip
            for start in range(0, len(page), batch_rows):
                taken = change([row.id for row in page[start : start + batch_rows]], left)
                yield taken
                left -= taken.taken
                if left <= 0:
                    return
            after = (page[-1].outbox_id, page[-1].id)

    def _rows(self, sql: str, where: str = "", /, **values: object) -> Sequence[Row[Any]]:
        statement = in_schema(sql.replace("@where@", where), self._schema)
        with told(), self._engine.connect() as connection:
            return connection.execute(statement, {"outbox": self._outbox, **values}).all()

    def _changed(self, sql: str, ids: Sequence[int], **values: object) -> int:
        try:
            return int(self._rows(sql, ids=ids, **values)[0][0])
        except DBAPIError as error:
            # A newer row of a key was published since the obstacles were looked up; PostgreSQL says so in a sentence.
            if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == _NOT_IN_PREREQUISITE_STATE:
                raise UsageError(f"{error.orig.diag.message_primary}; --force does it all the same") from error
            raise


def _whole(row: Row[Any], obstacle: Obstacle | None) -> WholeLetter:
    values = dict(row._mapping)
    payload = values.pop("payload")
    return WholeLetter(Letter(**values), payload, obstacle)


def _by_size(rows: Sequence[Row[Any]]) -> Iterator[Sequence[int]]:
    ids: list[int] = []
    size_bytes = 0
    for row in rows:
        if ids and size_bytes + row.size_bytes > EXPORT_BATCH_BYTES:
            yield ids
            ids, size_bytes = [], 0
        ids.append(row.id)
        size_bytes += row.size_bytes
    yield ids


def signed(note: str | None, who: str) -> str | None:
    """The note with who asked: the database only knows the role, which people often share."""
    return f"{note or 'no reason given'} (asked by {who})" if who else note
