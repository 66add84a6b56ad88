"""The settle statement: all outcomes of a batch in one autocommit statement, fenced by the lease.

Its first part locks the lease row `FOR SHARE` where token *and* holder are ours, on the timeline and the storage of the
table with which the lease was acquired, and every write joins it: when another daemon took over meanwhile, the row does
not match and nothing is written; while this statement runs, nobody can take over. The parts that a settlement does not
have are not in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from outboxd.policy.rows.content import PIECE_DIGITS
from outboxd.postgres.connections.lock_limit import LIMITED
from outboxd.postgres.lease.ownership import IS_SAME
from outboxd.postgres.schema.names import quoted_beside_parameters
from outboxd.postgres.store.letter_sql import MOVED_COLUMNS, content_text, moved_values, shipped_content_text

IS_PENDING = "(o.published_at IS NULL)::int = 1"
"""A condition that the planner does not take for the indexes of pending rows: rows are looked up by the primary key,
one by one. It may else join a batch with all that is pending, above all where statistics are missing or old."""
_ON_DISK = (
    "(SELECT CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END) AS on_disk"
)
"""Where the role or the database commits without waiting for the disk: a crash that takes back the progress or a mark
would have rows sent twice that a consumer was promised once."""


@dataclass(frozen=True, slots=True)
class Writes:
    """Which writes a settlement has."""

    delivered: bool
    retries: bool
    dead: bool
    replayed: bool
    recovered_replays: bool
    died_again: bool
    out_of_retry: bool
    storms: bool
    progress: bool
    pieces: bool
    is_recovered: bool = False


def _hidden(array: str) -> str:
    """Return the array as one whose length the planner does not see: it then expects few, and looks each up."""
    return f"(SELECT %({array})s::bigint[])"


def piece_text(column: str) -> str:
    """Return the expression for the piece of an event id, as `policy.rows.event_pieces` has it."""
    digits = f"replace({column}::text, '-', '')"
    return f"(('x' || left({digits}, 16))::bit(64)::bigint # ('x' || right({digits}, 16))::bit(64)::bigint)"


def of_same_event(column: str) -> str:
    """Return the condition that the row is of the event that the piece `d.piece` tells, where one is told."""
    return f"(d.piece IS NULL OR d.piece = coalesce({piece_text(column)}, 0))"


class SettleSql:
    """The statement's text for one outbox."""

    def __init__(self, schema: str, table: str, *, deletes: bool, exactly_once: bool = False) -> None:
        """`deletes` removes delivered rows instead of marking them; with `exactly_once` each settlement waits for the
        disk: one without progress too, since its rows leave memory.
        """
        self._schema = quoted_beside_parameters(schema)
        self._table = f"{self._schema}.{quoted_beside_parameters(table)}"
        self._deletes = deletes
        self._exactly_once = exactly_once
        self.text = lru_cache(maxsize=64)(self._text)

    def _text(self, writes: Writes) -> str:
        on_disk = f"{_ON_DISK}, " if self._exactly_once else ""
        parts = [
            (
                f"ours AS MATERIALIZED (SELECT l.token FROM {LIMITED}, {on_disk}{self._schema}.lease AS l"
                " WHERE l.outbox = %(outbox)s"
                f" AND l.shard = 0 AND l.token = %(token)s AND l.holder = %(holder)s::uuid AND {IS_SAME}"
                " FOR SHARE OF l)"
            ),
        ]
        if writes.delivered:
            parts.append(self._delivered(writes))
        if writes.retries:
            parts.append(self._retries())
        if writes.dead:
            parts += [self._moved(of_an_event=writes.pieces), self._dead()]
        if writes.replayed:
            parts.append(self._replayed())
        if writes.recovered_replays:
            parts.append(self._recovered_replays())
        if writes.died_again:
            parts.append(self._died_again())
        if writes.out_of_retry:
            parts.append(
                f"tried AS (DELETE FROM {self._schema}.retry AS r USING ours WHERE r.outbox = %(outbox)s"
                " AND r.outbox_id = ANY(%(out_of_retry)s::bigint[]))"
            )
        if writes.storms:
            parts.append(
                f"stormed AS (INSERT INTO {self._schema}.control (outbox, topic_pattern, who, note)"
                " SELECT %(outbox)s, d.topic, %(daemon)s, d.note FROM ours, unnest(%(storm_topics)s::text[],"
                " %(storm_notes)s::text[]) AS d(topic, note) ON CONFLICT DO NOTHING)"
            )
        if writes.progress:
            parts.append(
                f"progressed AS (INSERT INTO {self._schema}.progress AS p (outbox, shard, settled_transaction)"
                " SELECT %(outbox)s, 0, %(transaction)s FROM ours ON CONFLICT (outbox, shard) DO UPDATE"
                " SET settled_transaction = greatest(p.settled_transaction, excluded.settled_transaction))"
            )
        counted = [
            f"(SELECT count(*) FROM {part})"
            for part, has in (
                ("delivered", writes.delivered),
                ("settled_before", writes.delivered and writes.is_recovered),
                ("moved", writes.dead),
            )
            if has
        ]
        return f"WITH {', '.join(parts)} SELECT (SELECT count(*) FROM ours), {' + '.join(counted) or '0::bigint'}"

    def _delivered(self, writes: Writes) -> str:
        if writes.is_recovered:
            return f"{self._of_events()}, {self._settled_before()}"
        if writes.pieces:
            return self._of_events()
        if self._deletes:
            return (
                f"delivered AS (DELETE FROM {self._table} AS o USING ours"
                f" WHERE o.id = ANY({_hidden('delivered_ids')}::bigint[]) AND {IS_PENDING} RETURNING 1)"
            )
        return (
            f"delivered AS (UPDATE {self._table} AS o SET published_at = now(),"
            " published_partition = nullif(d.partition, -1)::int, published_offset = nullif(d.record_offset, -1)"
            f" FROM ours, unnest({_hidden('delivered_ids')}, {_hidden('delivered_partitions')},"
            f" {_hidden('delivered_offsets')}) AS d(id, partition, record_offset)"
            f" WHERE o.id = d.id AND {IS_PENDING} RETURNING 1)"
        )

    def _of_events(self) -> str:
        """Rows of the same id *and* event, since the id may have been given again: what a progress record names, or
        what was read before a connection was lost.
        """
        same = f"o.id = d.id AND {IS_PENDING} AND {of_same_event('o.event_id')}"
        named = (
            f"unnest({_hidden('delivered_ids')}, {_hidden('delivered_partitions')}, {_hidden('delivered_offsets')},"
            f" {_hidden('delivered_pieces')}) AS d(id, partition, record_offset, piece)"
        )
        if self._deletes:
            return f"delivered AS (DELETE FROM {self._table} AS o USING ours, {named} WHERE {same} RETURNING 1)"
        return (
            f"delivered AS (UPDATE {self._table} AS o SET published_at = now(),"
            " published_partition = nullif(d.partition, -1)::int, published_offset = nullif(d.record_offset, -1)"
            f" FROM ours, {named}"
            f" WHERE {same} RETURNING 1)"
        )

    def _settled_before(self) -> str:
        """Of what a progress record names, the owner before may have settled a part: these rows are gone, or marked."""
        return (
            "settled_before AS (SELECT 1 FROM ours,"
            f" unnest({_hidden('delivered_ids')}, {_hidden('delivered_pieces')}) AS d(id, piece)"
            f" LEFT JOIN {self._table} AS o ON o.id = d.id"
            f" WHERE o.id IS NULL OR NOT {IS_PENDING} AND {of_same_event('o.event_id')})"
        )

    def _retries(self) -> str:
        return (
            f"retried AS (INSERT INTO {self._schema}.retry AS r"
            " (outbox, outbox_id, attempts, next_attempt_at, own_age, error_code, error_message)"
            " SELECT %(outbox)s, d.id, d.attempts, now() + make_interval(secs => d.delay),"
            " make_interval(secs => d.age), d.code, d.message"
            " FROM ours, unnest(%(retry_ids)s::bigint[], %(retry_attempts)s::int[], %(retry_delays)s::float8[],"
            " %(retry_ages)s::float8[], %(retry_codes)s::text[], %(retry_messages)s::text[])"
            " AS d(id, attempts, delay, age, code, message)"
            f" WHERE EXISTS (SELECT FROM {self._table} AS o WHERE o.id = d.id)"
            " ON CONFLICT (outbox, outbox_id) DO UPDATE SET attempts = excluded.attempts,"
            " next_attempt_at = excluded.next_attempt_at, own_age = excluded.own_age,"
            " error_code = excluded.error_code, error_message = excluded.error_message)"
        )

    def _moved(self, *, of_an_event: bool) -> str:
        pieces, column, same = "", "", ""
        if of_an_event:
            pieces, column = ", %(dead_pieces)s::bigint[]", ", piece"
            same = f" AND {of_same_event('o.event_id')}"
        return (
            f"moved AS (DELETE FROM {self._table} AS o USING ours, unnest(%(dead_ids)s::bigint[],"
            " %(dead_attempts)s::int[], %(dead_reasons)s::text[], %(dead_codes)s::text[], %(dead_messages)s::text[],"
            f" %(dead_holds)s::bool[]{pieces}) AS d(id, attempts, reason, code, message, holds{column})"
            f" WHERE o.id = d.id AND {IS_PENDING}{same} RETURNING o.id AS outbox_id,"
            f" {', '.join('o.' + column for column in MOVED_COLUMNS.split(', '))},"
            " d.attempts, d.reason, d.code, d.message, d.holds),"
            f" untried AS (DELETE FROM {self._schema}.retry AS r USING ours WHERE r.outbox = %(outbox)s"
            " AND r.outbox_id = ANY(%(dead_ids)s::bigint[]) RETURNING r.outbox_id, r.first_failed_at)"
        )

    def _dead(self) -> str:
        return (
            f"buried AS (INSERT INTO {self._schema}.dead_letter (outbox, outbox_id, {MOVED_COLUMNS}, attempts, reason,"
            " error_code, error_message, holds_key, first_failed_at, daemon)"
            f" SELECT %(outbox)s, m.outbox_id, {moved_values()},"
            " m.attempts, m.reason, m.code, m.message, m.holds, coalesce(u.first_failed_at, now()), %(daemon)s"
            " FROM moved AS m LEFT JOIN untried AS u USING (outbox_id)"
            " ON CONFLICT (outbox, outbox_id, event_id) DO UPDATE SET status = 'dead', attempts = excluded.attempts,"
            " reason = excluded.reason, error_code = excluded.error_code, error_message = excluded.error_message,"
            " holds_key = excluded.holds_key, died_at = now(), daemon = excluded.daemon)"
        )

    def _resolved(self, part: str) -> str:
        """Return the beginning of a part that resolves replays, whose places are those of `d`."""
        return (
            f"{part} AS (UPDATE {self._schema}.dead_letter AS l SET status = 'replayed', resolved_at = now(),"
            " note = concat_ws(E'\\n', nullif(l.note, ''), 'delivered to ' || l.topic"
            " || coalesce('-' || nullif(d.partition, -1), '')"
            " || coalesce('@' || nullif(d.record_offset, -1), ''))"
        )

    def _recovered_replays(self) -> str:
        # As with `replayed`; where it was not noted what was sent, of what is replayed still that is taken for it.
        return (
            f"{self._resolved('recovered_replays')}"
            " FROM ours, unnest(%(recovered_ids)s::bigint[], %(recovered_partitions)s::bigint[],"
            " %(recovered_offsets)s::bigint[], %(recovered_pieces)s::bigint[], %(recovered_contents)s::text[])"
            " AS d(id, partition, record_offset, piece, content)"
            f" WHERE l.outbox = %(outbox)s AND l.outbox_id = d.id AND {of_same_event('l.event_id')}"
            " AND CASE WHEN d.content IS NULL THEN l.status = 'replaying' ELSE l.status IN ('dead', 'replaying')"
            f" AND d.content = left({content_text('l')}, {PIECE_DIGITS}) END)"
        )

    def _replayed(self) -> str:
        return (
            f"{self._resolved('replayed')}"
            " FROM ours, unnest(%(replayed_ids)s::bigint[], %(replayed_partitions)s::bigint[],"
            " %(replayed_offsets)s::bigint[], %(replayed_contents)s::text[])"
            " AS d(id, partition, record_offset, content)"
            # Taken back too late it was delivered all the same. What was mended meanwhile was not: it goes by itself.
            f" WHERE l.id = d.id AND l.status IN ('dead', 'replaying') AND d.content = {content_text('l')})"
        )

    def _died_again(self) -> str:
        # Who asked for the replay, and when, goes into the note: the next entry would else write over it.
        return (
            f"died_again AS (UPDATE {self._schema}.dead_letter AS l SET status = 'dead', attempts = d.attempts,"
            " reason = d.reason, error_code = d.code, error_message = d.message, holds_key = d.holds, died_at = now(),"
            f" daemon = %(daemon)s, note = {self._schema}.past_note(l), resolved_at = NULL, resolved_by = NULL"
            " FROM ours, unnest(%(again_ids)s::bigint[], %(again_attempts)s::int[], %(again_reasons)s::text[],"
            " %(again_codes)s::text[], %(again_messages)s::text[], %(again_holds)s::bool[],"
            " %(again_contents)s::text[]) AS d(id, attempts, reason, code, message, holds, content)"
            # What was mended and replayed again meanwhile did not die: it goes by itself.
            f" WHERE l.id = d.id AND l.status = 'replaying' AND d.content = {shipped_content_text('l')})"
        )
