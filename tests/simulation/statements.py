"""The relay's statements on the simulated database, with the meaning of the real SQL: one snapshot, arms and cuts."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from datetime import datetime
from operator import itemgetter

from outboxd.policy.exchange.reads import DueReplay, Fetched, HoldingLetters, KeyHolder, Loaded, Pause, Swept
from outboxd.policy.exchange.requests import FetchRequest, Known, Settlement, SweepRequest
from outboxd.policy.rows.content import content_digest
from outboxd.policy.rows.event_pieces import event_pieces
from outboxd.policy.rows.records import FIRST_ID, ID_MAX, Arm, Record
from tests.simulation.database import Database, DeadRow, RetryRow, Row
from tests.simulation.history import Violation
from tests.simulation.timeline import EPOCH_MS

LINEAGE = "simulated"
LISTED_MAX = 5
REPLAYS_LOADED_MAX = 2


def load(db: Database) -> Loaded:
    holders: list[KeyHolder] = []
    now = db.now
    for outbox_id, retry in db.retry.items():
        row = db.pending.get(outbox_id)
        if row is not None:
            due = retry.next_attempt_at - now
            holders.append(
                KeyHolder(
                    outbox_id,
                    row.topic,
                    row.key,
                    retry.attempts,
                    None,
                    replaying=False,
                    due_in_seconds=due,
                    own_age_seconds=retry.own_age,
                    error_code=retry.error_code,
                )
            )
    holders += map(_key_holder, _loaded_letters(db))
    return Loaded(holders, _pauses(db), db.now_ms, db.settled_transaction, LINEAGE)


def _key_holder(dead: DeadRow) -> KeyHolder:
    row, is_replaying = dead.row, dead.status == "replaying"
    return KeyHolder(row.id, row.topic, row.key, dead.attempts, dead.id, is_replaying, 0.0)


def _holds_key(dead: DeadRow) -> bool:
    return dead.holds_key and dead.status in ("dead", "replaying")


def _loaded_letters(db: Database) -> list[DeadRow]:
    holding = [dead for dead in db.dead.values() if _holds_key(dead)]
    others = [dead for dead in db.dead.values() if not dead.holds_key and dead.status == "replaying"]
    return holding + sorted(others, key=lambda dead: dead.row.id)[:REPLAYS_LOADED_MAX]


def _pauses(db: Database) -> list[Pause]:
    if not db.control:
        return []
    return [
        Pause(pattern, EPOCH_MS + int(since * 1000), "someone", note)
        for pattern, (since, note) in sorted(db.control.items())
    ]


def fetch(db: Database, request: FetchRequest) -> Fetched:
    """Answer a fetch from the snapshot of now; the locks are added later, as they are read later."""
    _check_bigints(request)
    due_ids, retry_cursor = _due(db, request) if db.retry else ([], None)
    replays: list[DeadRow] = []
    holding = None if request.holding_after is None else _holding(db, request.holding_after)
    if db.dead:
        letters = db.dead.values()
        replays = sorted(
            (dead for dead in letters if dead.status == "replaying" and dead.row.id > request.replay_cursor),
            key=lambda dead: dead.row.id,
        )[:LISTED_MAX]
    available, available_cursor = _available(db, request)
    return Fetched(
        records=_records(db, request),
        now_ms=db.now_ms,
        due_ids=due_ids,
        retry_cursor=retry_cursor,
        replays=[
            DueReplay(
                dead.id,
                dead.row.id,
                dead.row.topic,
                dead.row.key,
                dead.attempts,
                _is_behind(db, dead, request.replay_cursor),
            )
            for dead in replays
        ],
        holding=holding,
        pauses=_pauses(db),
        available_ids=available,
        available_cursor=available_cursor,
        top_id=max((i for i in db.pending if i > request.position), default=None) if request.want_top else None,
    )


def _check_bigints(request: FetchRequest) -> None:
    """PostgreSQL refuses a statement with a number that its type has no room for."""
    begins = [wish.from_id for wish in request.rereads]
    begins += [wish.from_id for wish in (*request.catch_ups, *request.probe_reads)]
    numbers = [request.position, request.replay_cursor, *request.gap_lows, *request.gap_highs, *request.chosen_ids]
    numbers += begins + list(map(request.end_of, begins))
    if numbers and not FIRST_ID <= min(numbers) <= max(numbers) <= ID_MAX:
        raise Violation("bigint", f"a fetch asks for ids from {min(numbers)} to {max(numbers)}")


def _is_behind(db: Database, dead: DeadRow, cursor: int) -> bool:
    """Whether an earlier dead letter of the key is replayed too, and stands before the cursor."""
    row = dead.row
    return row.key is not None and any(
        (other.row.topic, other.row.key) == (row.topic, row.key) and other.row.id <= cursor
        for other in db.dead.values()
        if other.status == "replaying"
    )


def _holding(db: Database, after: int) -> HoldingLetters:
    letters = sorted((_key_holder(dead) for dead in db.dead.values() if _holds_key(dead)), key=itemgetter(0))
    letters = [letter for letter in letters if letter.outbox_id > after]
    if len(letters) < LISTED_MAX:
        return HoldingLetters(letters, None)
    cursor = letters[LISTED_MAX - 1].outbox_id
    return HoldingLetters([letter for letter in letters if letter.outbox_id <= cursor], cursor)


def _due(db: Database, request: FetchRequest) -> tuple[list[int], tuple[datetime, int] | None]:
    moment = db.timeline.moment
    listed = sorted(
        (moment(retry.next_attempt_at), outbox_id)
        for outbox_id, retry in db.retry.items()
        if retry.next_attempt_at <= db.now
    )
    if request.retry_cursor is not None:
        listed = [entry for entry in listed if entry > request.retry_cursor]
    listed = listed[:LISTED_MAX]
    return [outbox_id for _, outbox_id in listed], (listed[-1] if listed else None)


def _available(db: Database, request: FetchRequest) -> tuple[list[int], tuple[datetime, int]]:
    moment, now = db.timeline.moment, db.now
    cursor = request.available_cursor
    if cursor is None:
        return [], (moment(now), ID_MAX)
    listed = sorted(
        (moment(row.available_at), row.id)
        for row in db.pending.values()
        if row.available_at is not None
        and row.available_at <= now
        and (moment(row.available_at), row.id) > cursor
        and row.id <= request.position
    )[:LISTED_MAX]
    is_cut = len(listed) >= LISTED_MAX
    return [i for _, i in listed], (listed[-1] if is_cut else (moment(now), ID_MAX))


def _records(db: Database, request: FetchRequest) -> list[Record]:
    if not db.pending and not request.replay_ids:
        return []
    now, position = db.now, request.position
    rows = [db.pending[i] for i in sorted(db.pending)]
    seen = [row for row in rows if row.available_at is None or row.available_at <= now]
    answer: list[Record] = []

    def add(arm: Arm, found: Iterable[Row]) -> None:
        answer.extend(row.record(arm, EPOCH_MS + int(row.created_at * 1000)) for row in found)

    if request.gap_lows:
        add(Arm.LOOK_BACK, _in_gaps(seen, request)[: request.rows_max])
    if request.chosen_ids:
        chosen = set(request.chosen_ids)
        add(Arm.CHOSEN, [row for row in rows if row.id in chosen])
    if request.replay_ids:
        replayed = [db.dead[i].row for i in request.replay_ids if db.dead[i].status == "replaying"]
        add(Arm.REPLAY, sorted(replayed, key=lambda row: row.id))
    reread: list[Row] = []
    for wish in request.rereads:
        topic, key = wish.gate_key
        end_id = position if key is not None else request.end_of(wish.from_id)
        matching = [r for r in seen if r.topic == topic and key in (None, r.key) and wish.from_id <= r.id <= end_id]
        reread += matching[: request.reread_rows_max]
    add(Arm.REREAD, sorted(reread, key=lambda row: row.id))
    caught_up: list[Row] = []
    for wishes, rows_max in (
        (request.catch_ups, request.catch_up_rows_max),
        (request.probe_reads, request.probe_rows_max),
    ):
        for catch_up in wishes:
            end_id = request.end_of(catch_up.from_id)
            matching = [r for r in seen if r.topic == catch_up.topic and catch_up.from_id <= r.id <= end_id]
            caught_up += matching[:rows_max]
    add(Arm.CATCH_UP, sorted(caught_up, key=lambda row: row.id))
    if request.forward:
        add(Arm.FORWARD, [row for row in seen if row.id > position][: request.rows_max])
    return _cut(answer, request)


def _in_gaps(rows: list[Row], request: FetchRequest) -> list[Row]:
    lows, highs = request.gap_lows, request.gap_highs
    found = []
    for row in rows:
        place = bisect.bisect_right(lows, row.id) - 1
        if place >= 0 and row.id <= highs[place] and not (request.known is not None and _is_known(row, request.known)):
            found.append(row)
    return found


def _is_known(row: Row, known: Known) -> bool:
    by_key = None if row.key is None else known.keys.get(row.topic, {}).get(row.key)
    from_ids = [from_id for from_id in (known.topics.get(row.topic), by_key) if from_id is not None]
    return row.id in known.ids or any(row.id >= from_id for from_id in from_ids)


def _cut(answer: list[Record], request: FetchRequest) -> list[Record]:
    size_bytes = 0
    for place, record in enumerate(answer):
        if size_bytes >= request.bytes_max or place >= request.rows_max:
            return answer[:place]
        size_bytes += record.size_bytes
    return answer


def sweep(db: Database, request: SweepRequest, chunk_rows: int) -> Swept:
    now = db.now
    skipped_topics, skipped_keys = request.skipped_topics, set(request.skipped_keys)
    # A chunk is so many rows looked at, whether or not they are told.
    looked_at = [row_id for row_id in sorted(db.pending) if request.cursor < row_id <= request.position]
    chunk = looked_at[: min(chunk_rows, request.rows_max)]
    found = [
        (row_id, row.topic, row.key)
        for row_id, row in ((row_id, db.pending[row_id]) for row_id in chunk)
        if (row.available_at or 0.0) <= now
        and row_id < skipped_topics.get(row.topic, ID_MAX + 1)
        and (row.topic, row.key) not in skipped_keys
    ]
    return Swept(found, chunk[-1] if len(chunk) >= min(chunk_rows, request.rows_max) else None)


def settle(db: Database, settlement: Settlement) -> int:
    """Write a settlement; return how many rows of the outbox it changed. The fence was looked at before."""
    now = db.now
    settled_before = (
        sum(row_id not in db.pending for row_id in settlement.delivered_ids) if settlement.is_recovered else 0
    )
    matched = settled_before + _delivered(db, settlement) + _buried(db, settlement)
    for row_id, retry in settlement.retries:
        row = db.rows.get(row_id)
        if row is not None and not row.ever_dead and (row_id in db.pending or not db.deletes):
            due = now + retry.delay_seconds
            db.retry[row_id] = RetryRow(retry.attempts, due, retry.own_age_seconds, retry.fault.name)
    _replayed(db, settlement)
    for row_id in settlement.out_of_retry:
        db.retry.pop(row_id, None)
    for pattern, note in settlement.storms:
        db.control.setdefault(pattern, (now, note))
    db.settled_transaction = max(db.settled_transaction, settlement.transaction or 0)
    return matched


def _delivered(db: Database, settlement: Settlement) -> int:
    matched = 0
    places = zip(settlement.delivered_partitions, settlement.delivered_offsets, strict=True)
    pieces = settlement.delivered_pieces or [None] * len(settlement.delivered_ids)
    for row_id, place, piece in zip(settlement.delivered_ids, places, pieces, strict=True):
        row = db.pending.get(row_id)
        if row is not None and (piece is None or is_of_event(row, piece)):
            matched += 1
            del db.pending[row_id]
            row.published = place
    return matched


def is_of_event(row: Row, piece: int) -> bool:
    """Say whether the row is of the event that this piece was noted of."""
    return event_pieces([row.event_id])[0] == piece


def _buried(db: Database, settlement: Settlement) -> int:
    matched = 0
    pieces = settlement.dead_pieces or [None] * len(settlement.dead)
    for (row_id, death), piece in zip(settlement.dead, pieces, strict=True):
        row = db.pending.get(row_id)
        if row is not None and piece is not None and not is_of_event(row, piece):
            row = None
        if row is not None:
            del db.pending[row_id]
        db.retry.pop(row_id, None)
        if row is not None:
            matched += 1
            db.bury(row, death.reason.value, death.fault.name, death.attempts, holds_key=death.holds_key)
    return matched


def _replayed(db: Database, settlement: Settlement) -> None:
    for dead_id, partition, offset, content in settlement.replayed:
        dead = db.dead[dead_id]
        if dead.status in ("dead", "replaying") and content == _content(dead):
            _resolve(db, dead, partition, offset)
    for row_id, partition, offset, piece, content_piece in settlement.recovered_replays:
        statuses = ("replaying",) if content_piece is None else ("dead", "replaying")
        for dead in db.dead.values():
            is_meant = dead.row.id == row_id and (piece is None or is_of_event(dead.row, piece))
            is_same = content_piece is None or _content(dead).startswith(content_piece)
            if is_meant and is_same and dead.status in statuses:
                _resolve(db, dead, partition, offset)
    for dead_id, death, content in settlement.died_again:
        dead = db.dead[dead_id]
        if dead.status == "replaying" and content == _content(dead):
            dead.status, dead.attempts, dead.holds_key = "dead", death.attempts, death.holds_key


def _content(dead: DeadRow) -> str:
    return content_digest(dead.row.record(Arm.REPLAY, 0))


def _resolve(db: Database, dead: DeadRow, partition: int | None, offset: int | None) -> None:
    dead.status, dead.resolved_at = "replayed", db.now
    dead.row.published = (partition, offset)
