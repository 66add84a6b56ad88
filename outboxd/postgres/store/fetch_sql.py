"""The fetch statement: pending records of every kind, and what goes with them, in one statement and so from one
snapshot.

Its first row is the META row: JSON in the place of the headers, with the database's time, the due retries, replays,
pauses and, where asked, the dead letters that hold their keys and the transactions that hold the outbox. `pg_locks` is
read while the statement runs, so after its snapshot, as the fence of the gaps wants it (see `policy.fetch.gaps`). The
parts that nobody asked for are not in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from outboxd.policy.rows.records import FIRST_ID, Arm
from outboxd.postgres.lease.ownership import HAS_MOVED, is_owned_text
from outboxd.postgres.schema.finite import finite, finite_ms
from outboxd.postgres.schema.names import quoted_beside_parameters
from outboxd.postgres.store.record_sizes import SHIPPED_HEADERS, SHIPPED_PAYLOAD, SIZE, SIZE_AT_SIGHT
from outboxd.postgres.store.table_parts import TABLES

LISTED_MAX = 500
"""How many due retries, replays, delayed records and dead letters that hold their keys one fetch lists."""
KEY_HASH = "hashtextextended(o.key, hashtextextended(o.topic, 0))"


def limit_text(value: str) -> str:
    """Return a limit that the planner cannot see, so that it plans for the first tenth, as an index gives it in order.

    Of a limit that it sees it may believe that all rows fit, in a table without statistics or with old ones: it then
    reads and sorts the whole backlog for each batch.
    """
    return f"LIMIT (SELECT {value}::bigint)"


class Parts(NamedTuple):
    """Which parts a fetch has; a tuple, since it is made and looked up for each."""

    look_back: bool
    known: bool
    chosen: bool
    replay: bool
    reread: bool
    reread_serial: bool
    catch_up: bool
    probe: bool
    forward: bool
    locks: bool
    holding: bool
    retries_after: bool
    replays_after: bool
    delayed: bool
    top: bool


class FetchSql:
    """The statement's text for one outbox."""

    def __init__(self, schema: str, table: str) -> None:
        """The names are quoted here."""
        self._schema = quoted_beside_parameters(schema)
        self._table = f"{self._schema}.{quoted_beside_parameters(table)}"
        self._is_owned = is_owned_text(schema)
        self.text = lru_cache(maxsize=64)(self._text)

    def _text(self, parts: Parts) -> str:
        arms = self._arms(parts)
        meta = self._meta(parts)
        if not arms:
            return meta
        if len(arms) == 1 and parts.forward:
            forward = self._forward(payload=SHIPPED_PAYLOAD, headers=SHIPPED_HEADERS)
            return f"{meta}\nUNION ALL\n(SELECT a.* FROM {forward} AS a ORDER BY a.id LIMIT {self._fitting_rows()})"
        several = len(arms) > 1
        order = "arm, id" if several else "id"
        # Texts are made of the headers of what is shipped, not of all that is sorted for that.
        return (
            f"{meta}\nUNION ALL\n(SELECT arm, id, event_id, topic, key, {SHIPPED_PAYLOAD}, {SHIPPED_HEADERS},"
            f" partition, created_at_ms, size_bytes"
            f"\nFROM (SELECT a.*, sum(size_bytes) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS running_bytes"
            f"\nFROM ({' UNION ALL '.join(arms)}) AS a) AS o"
            f"\nWHERE running_bytes - size_bytes < %(bytes_max)s ORDER BY {order} LIMIT %(rows_max)s)"
        )

    def _arms(self, parts: Parts) -> list[str]:
        """What may show records, in the order in which it stands in the answer."""
        makers: list[tuple[bool, Callable[[], str]]] = [
            (parts.look_back, lambda: self._look_back(parts.known)),
            (parts.chosen, self._chosen),
            (parts.replay, self._replay),
            (parts.reread, self._reread),
            (parts.reread_serial, lambda: self._by_topic(Arm.REREAD, "serial", "reread_rows_max")),
            (parts.catch_up, lambda: self._by_topic(Arm.CATCH_UP, "catch_up", "catch_up_rows_max")),
            (parts.probe, lambda: self._by_topic(Arm.CATCH_UP, "probe", "probe_rows_max")),
            (parts.forward, self._forward),
        ]
        return [make() for is_wanted, make in makers if is_wanted]

    def _fitting_rows(self) -> str:
        """How many of the forward rows the byte limit lets through.

        Their sizes are summed apart, and row by row only where they are too many: a running sum over every row that is
        sent would cost the server half as much again. It ends with the first row that is beyond the limit, since the
        size of compressed headers is dear.
        """
        at_sight, exactly = (
            f"(SELECT o.id, {size} AS size_bytes FROM {self._table} AS o"
            f" WHERE o.id > %(position)s AND {self._pending} ORDER BY o.id {limit_text('%(rows_max)s')})"
            for size in (SIZE_AT_SIGHT, SIZE)
        )
        return (
            f"(SELECT CASE WHEN sum(s.size_bytes) <= %(bytes_max)s THEN count(*) ELSE"
            f" coalesce((SELECT b.place - 1 FROM (SELECT z.id, row_number() OVER w AS place,"
            f" sum(z.size_bytes) OVER w - z.size_bytes AS bytes_before FROM {exactly} AS z"
            f" WINDOW w AS (ORDER BY z.id ROWS UNBOUNDED PRECEDING)) AS b"
            f" WHERE b.bytes_before >= %(bytes_max)s ORDER BY b.id LIMIT 1), count(*)) END FROM {at_sight} AS s)"
        )

    def _columns(
        self, arm: Arm, record_id: str = "o.id", *, payload: str = "o.payload", headers: str = "o.headers"
    ) -> str:
        return (
            f"{int(arm)}::int AS arm, {record_id} AS id, coalesce(o.event_id::text, '') AS event_id,"
            f" coalesce(o.topic, '') AS topic, o.key, {payload} AS payload, {headers} AS headers, o.partition,"
            f" CASE WHEN o.created_at = '-infinity' THEN -1 ELSE (date_part('epoch',"
            # The statement's start is told without asking the clock; rows created since are in its snapshot too.
            f" CASE WHEN o.created_at <= now() THEN o.created_at ELSE least(o.created_at, clock_timestamp()) END)"
            f" * 1000)::bigint END"
            f" AS created_at_ms, {SIZE}::bigint AS size_bytes"
        )

    @property
    def _pending(self) -> str:
        return "o.published_at IS NULL AND (o.available_at IS NULL OR o.available_at <= now())"

    def _look_back(self, leaves_out_known: bool) -> str:
        # In the row's own words instead of joins, so that the plan is the same with and without it.
        known = (
            " AND (o.id >= (%(known_topics)s::jsonb ->> o.topic)::bigint) IS NOT TRUE"
            " AND (o.id >= (%(known_keys)s::jsonb #>> ARRAY[o.topic, o.key])::bigint) IS NOT TRUE"
            " AND NOT o.id = ANY(SELECT unnest(%(known_ids)s::bigint[]))"
        )
        # Gap by gap, each by the index: as a join the planner may walk the whole backlog and hold every row of it
        # against every gap, so that a long backlog makes each fetch slow, and slow fetches the backlog longer.
        return (
            f"(SELECT r.* FROM unnest(%(gap_lows)s::bigint[], %(gap_highs)s::bigint[]) AS g(low, high)"
            f" CROSS JOIN LATERAL (SELECT {self._columns(Arm.LOOK_BACK)} FROM {self._table} AS o"
            f" WHERE o.id BETWEEN g.low AND g.high AND {self._pending}{known if leaves_out_known else ''} ORDER BY o.id"
            f" {limit_text('%(rows_max)s')}) AS r ORDER BY r.id LIMIT %(rows_max)s)"
        )

    def _chosen(self) -> str:
        return (
            f"(SELECT {self._columns(Arm.CHOSEN)} FROM {self._table} AS o"
            f" WHERE o.id = ANY(%(chosen_ids)s::bigint[]) AND o.published_at IS NULL)"
        )

    def _replay(self) -> str:
        return (
            f"(SELECT {self._columns(Arm.REPLAY, 'o.outbox_id')} FROM {self._schema}.dead_letter AS o"
            f" WHERE o.id = ANY(%(replay_ids)s::bigint[]) AND o.status = 'replaying')"
        )

    def _reread(self) -> str:
        # From (hash, id) to (hash, id), in that order, which one index gives. Of a hash alone the planner expects few
        # rows: it then reads and sorts all that a hot key has, or looks for them among all that is pending.
        wanted = "hashtextextended(w.key, hashtextextended(w.topic, 0))"
        return (
            f"(SELECT r.* FROM unnest(%(reread_topics)s::text[], %(reread_keys)s::text[], %(reread_ids)s::bigint[])"
            f" AS w(topic, key, from_id) CROSS JOIN LATERAL (SELECT {self._columns(Arm.REREAD)} FROM {self._table} AS o"
            f" WHERE ({KEY_HASH}, o.id) >= ({wanted}, w.from_id) AND ({KEY_HASH}, o.id) <= ({wanted}, %(position)s)"
            # In a CASE, lest the planner expect next to no rows of what is left of a hash's.
            f" AND o.key IS NOT NULL AND CASE WHEN o.topic = w.topic AND o.key = w.key THEN true ELSE false END"
            f" AND {self._pending}"
            f" ORDER BY {KEY_HASH}, o.id {limit_text('%(reread_rows_max)s')}) AS r)"
        )

    def _by_topic(self, arm: Arm, wish: str, limit: str) -> str:
        # By the index of pending ids: what is pending between a deferred topic's start and the position is mostly
        # its own, and where it is another's, the end keeps one read from passing over all of that. The end is a
        # comparison of rows, which the index takes as well: of a range the planner expects a two-hundredth of the
        # table, and then reads and sorts all of a long backlog for each fetch.
        return (
            f"(SELECT r.* FROM unnest(%({wish}_topics)s::text[], %({wish}_ids)s::bigint[], %({wish}_ends)s::bigint[])"
            f" AS w(topic, from_id, end_id)"
            f" CROSS JOIN LATERAL (SELECT {self._columns(arm)} FROM {self._table} AS o"
            f" WHERE CASE WHEN o.topic = w.topic THEN true ELSE false END AND o.id >= w.from_id"
            f" AND (o.id, 0) <= (w.end_id, 0) AND {self._pending}"
            f" ORDER BY o.id {limit_text(f'%({limit})s')}) AS r)"
        )

    def _forward(self, **shipped: str) -> str:
        return (
            f"(SELECT {self._columns(Arm.FORWARD, **shipped)} FROM {self._table} AS o"
            f" WHERE o.id > %(position)s AND {self._pending} ORDER BY o.id {limit_text('%(rows_max)s')})"
        )

    def _replays(self, parts: Parts) -> str:
        after = behind = ""
        if parts.replays_after:
            after = " AND l.outbox_id > %(replay_cursor)s"
            of_d, of_e = (f"hashtextextended({a}.key, hashtextextended({a}.topic, 0))" for a in "de")
            # One that an operator replays together with this one may stand before the cursor, where nobody looks now.
            behind = (
                f", EXISTS (SELECT FROM {self._schema}.dead_letter AS e WHERE e.status = 'replaying'"
                f" AND e.key IS NOT NULL AND ({of_e}, e.outbox_id) >= ({of_d}, {FIRST_ID})"
                f" AND ({of_e}, e.outbox_id) <= ({of_d}, %(replay_cursor)s) AND CASE WHEN e.outbox = %(outbox)s"
                # In a CASE, lest the planner go through all that is replayed of the outbox for each.
                " AND e.topic = d.topic AND e.key = d.key THEN true ELSE false END)"
            )
        return (
            f"(SELECT json_agg(json_build_array(d.id, d.outbox_id, d.topic, d.key, d.attempts{behind}))"
            f" FROM (SELECT l.id, l.outbox_id, l.topic, l.key, l.attempts FROM {self._schema}.dead_letter AS l"
            f" WHERE l.outbox = %(outbox)s AND l.status = 'replaying'{after}"
            f" ORDER BY l.outbox_id LIMIT {LISTED_MAX}) AS d)"
        )

    def _available(self) -> str:
        # What came to be due at the cursor's very moment, and what did since, apart: of a comparison of both columns at
        # once the planner expects so few rows that it reads and sorts them all.
        at_cursor, since = (
            f"(SELECT o.id, o.available_at FROM {self._table} AS o WHERE o.published_at IS NULL"
            f" AND o.available_at IS NOT NULL AND {due} AND o.available_at <= now() AND o.id <= %(position)s"
            f" ORDER BY o.available_at, o.id {limit_text(str(LISTED_MAX))})"
            for due in (
                "o.available_at = %(available_at)s::timestamptz AND o.id > %(available_id)s::bigint",
                "o.available_at > %(available_at)s::timestamptz",
            )
        )
        return (
            "(SELECT json_agg(json_build_array(d.id, d.available_at) ORDER BY d.available_at, d.id)"
            f" FROM (SELECT u.* FROM ({at_cursor} UNION ALL {since}) AS u ORDER BY u.available_at, u.id"
            f" LIMIT {LISTED_MAX}) AS d)"
        )

    def _meta(self, parts: Parts) -> str:
        after = " AND (r.next_attempt_at, r.outbox_id) > (%(retry_at)s::timestamptz, %(retry_id)s)"
        listed: Mapping[str, str | None] = {
            "due": f"(SELECT json_agg(json_build_array(d.outbox_id, {finite('d.next_attempt_at')}))"
            f" FROM (SELECT r.* FROM {self._schema}.retry AS r WHERE r.outbox = %(outbox)s"
            f" AND r.next_attempt_at <= now()"
            f"{after if parts.retries_after else ''} ORDER BY r.next_attempt_at, r.outbox_id LIMIT {LISTED_MAX}) AS d)",
            "replays": self._replays(parts),
            "pauses": f"(SELECT json_agg(json_build_array(c.topic_pattern,"
            f" {finite_ms('c.since')}, c.who, c.note) ORDER BY c.topic_pattern)"
            f" FROM {self._schema}.control AS c WHERE c.outbox = %(outbox)s)",
            "holding": f"(SELECT json_agg(json_build_array(d.outbox_id, d.topic, d.key, d.attempts, d.id, d.replaying))"
            " FROM (SELECT l.outbox_id, l.topic, l.key, l.attempts, l.id, l.status = 'replaying' AS replaying"
            f" FROM {self._schema}.dead_letter AS l WHERE l.outbox = %(outbox)s AND l.holds_key"
            " AND l.status IN ('dead', 'replaying') AND l.outbox_id > %(holding_after)s"
            f" ORDER BY l.outbox_id FETCH FIRST (SELECT {LISTED_MAX}) ROWS WITH TIES) AS d)"
            if parts.holding
            else None,
            "available": self._available() if parts.delayed else None,
            "top": f"(SELECT max(o.id) FROM {self._table} AS o WHERE o.published_at IS NULL AND o.id > %(position)s)"
            if parts.top
            else None,
            "locks": "(SELECT json_agg(DISTINCT l.virtualtransaction) FROM pg_locks AS l WHERE l.locktype = 'relation'"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            f" AND l.relation IN {TABLES} AND l.granted AND l.mode IN"
            " ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))"
            if parts.locks
            else None,
        }
        fields = ", ".join(f"'{name}', {part}" for name, part in listed.items() if part is not None)
        return (
            f"SELECT {int(Arm.META)}::int AS arm, (date_part('epoch', now()) * 1000)::bigint AS id,"
            " NULL::text AS event_id, NULL::text AS topic, NULL::text AS key, NULL::bytea AS payload,"
            f" json_strip_nulls(json_build_object('now', now(), 'standby', pg_is_in_recovery(), 'moved',"
            f" {HAS_MOVED}, 'owned', {self._is_owned}, {fields}))::text"
            " AS headers,"
            " NULL::int AS partition, 0::bigint AS created_at_ms, 0::bigint AS size_bytes"
        )
