"""All that the daemon asks of PostgreSQL again and again, each with what it may cost.

The batches are the shipped ones. The bounds are of what is asked for and of how many failed, never of how long the
outbox is: a record of a fetch is looked at twice (its size, then itself), at the worst on a page of its own; a range, a
key or an id takes three pages of an index; a mark takes an entry of the primary key beside the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from outboxd.maintenance.purge import BATCH_ROWS as PURGED_ROWS
from outboxd.policy.blame.outcomes import DeadLetter, DeathReason, Retry
from outboxd.policy.exchange.reads import Loaded, Swept
from outboxd.policy.exchange.requests import Known, Settlement, SweepRequest
from outboxd.policy.faults import KAFKA_FAULTS
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.rows.records import FIRST_ID
from outboxd.policy.topics.topic_holds import CatchUp
from outboxd.postgres.operators.overview import look
from outboxd.relay.admit.wishes import CHOSEN_ROWS_MAX, KEYS_REREAD_MAX
from outboxd.relay.fetch.sweeping import SKIPPED_KEYS_MAX, SWEEP_ROWS_MAX
from tests.support.daemon_statements import BATCH_ROWS, Pieces
from tests.support.large_outbox import DEAD_LETTERS, RETRIES, ROWS
from tests.support.plans import Bound

DAY_SECONDS = 86_400.0
KNOWN_KEYS = 10_000
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAULT = next(fault for fault in KAFKA_FAULTS.values() if fault.name == "MSG_SIZE_TOO_LARGE")


@dataclass(frozen=True)
class Repeated:
    """Something that the daemon does again and again, and what each of its statements may cost."""

    do: Callable[[Pieces], object]
    rows_max: int
    buffers_max: int

    @property
    def bound(self) -> Bound:
        return Bound(self.rows_max, self.buffers_max)


# --- Fetching


def forward(pieces: Pieces) -> None:
    fetched = pieces.fetch(forward=True, position=_early(pieces))
    assert len(fetched.records) == BATCH_ROWS
    assert fetched.due_ids
    assert fetched.replays


def from_the_beginning(pieces: Pieces) -> None:
    assert pieces.fetch(forward=True, position=FIRST_ID).records[0].id == pieces.outbox.first_pending_id


def cut_by_bytes(pieces: Pieces) -> None:
    assert 0 < len(pieces.fetch(forward=True, bytes_max=1_000).records) < 100


def looking_back(pieces: Pieces) -> None:
    """As many gaps as there may be, with few rows in each."""
    step = ROWS // 2_000
    lows = list(range(step, ROWS, step))
    fetched = pieces.fetch(
        forward=True, position=_early(pieces), gap_lows=lows, gap_highs=[low + 1 for low in lows], want_locks=True
    )
    assert fetched.records


def looking_back_past_what_is_known(pieces: Pieces) -> None:
    """Gaps that were merged across what is deferred, held or in memory."""
    first, step = pieces.outbox.first_pending_id, 100
    lows = list(range(first, first + 100 * step, step))
    orders = {f"key-{number}": first for number in range(KNOWN_KEYS)}
    known = Known(lows, {"paused": first}, {"orders": {"hot": first, **orders}})
    fetched = pieces.fetch(
        position=_early(pieces), gap_lows=lows, gap_highs=[low + step - 2 for low in lows], known=known
    )
    assert not fetched.records


def chosen(pieces: Pieces) -> None:
    first = pieces.outbox.first_pending_id
    ids = list(range(first, _early(pieces) + 1, (_early(pieces) - first) // CHOSEN_ROWS_MAX))[:CHOSEN_ROWS_MAX]
    assert len(pieces.fetch(chosen_ids=ids).records) == CHOSEN_ROWS_MAX


def replays(pieces: Pieces) -> None:
    assert len(pieces.fetch(replay_ids=_replaying(pieces, 100)).records) == 100


def replays_after(pieces: Pieces) -> None:
    """The list of replays from the middle on; each may stand behind one that was passed."""
    fetched = pieces.fetch(replay_cursor=ROWS + DEAD_LETTERS // 2)
    assert fetched.replays


def by_key(pieces: Pieces) -> None:
    keys = ["hot", *(f"key-{number}" for number in range(KEYS_REREAD_MAX - 1))]
    wishes = [Reread(("paused", key), 1) for key in keys]
    fetched = pieces.fetch(position=ROWS, rereads=wishes, reread_rows_max=256)
    assert fetched.records


def by_topic(pieces: Pieces) -> None:
    fetched = pieces.fetch(position=ROWS, rereads=[Reread(("paused", None), 1)], reread_rows_max=256)
    assert len(fetched.records) == 256


def catching_up(pieces: Pieces) -> None:
    fetched = pieces.fetch(position=ROWS, catch_ups=[CatchUp("paused", 1)], catch_up_rows_max=BATCH_ROWS)
    assert len(fetched.records) == BATCH_ROWS


def delayed(pieces: Pieces) -> None:
    fetched = pieces.fetch(forward=True, position=ROWS, available_cursor=(LONG_AGO, 0))
    assert len(fetched.available_ids) >= 100


def retries_after(pieces: Pieces) -> None:
    fetched = pieces.fetch(forward=True, position=ROWS, retry_cursor=(LONG_AGO, 0), holding_after=FIRST_ID)
    assert len(fetched.due_ids) > RETRIES // 3
    assert fetched.holding is not None
    assert fetched.holding.letters


def everything(pieces: Pieces) -> None:
    lows = list(range(1, ROWS, ROWS // 100))
    fetched = pieces.fetch(
        position=_early(pieces),
        forward=True,
        gap_lows=lows,
        gap_highs=[low + 1 for low in lows],
        want_locks=True,
        holding_after=FIRST_ID,
        chosen_ids=[pieces.outbox.first_pending_id + number for number in range(100)],
        replay_ids=_replaying(pieces, 10),
        rereads=[Reread(("paused", "hot"), 1), Reread(("paused", None), 1)],
        reread_rows_max=256,
        catch_ups=[CatchUp("paused", 1)],
        catch_up_rows_max=BATCH_ROWS,
        retry_cursor=(LONG_AGO, 0),
        available_cursor=(LONG_AGO, 0),
    )
    assert len(fetched.records) == BATCH_ROWS


# --- What a new owner reads, and the sweep


def load(pieces: Pieces) -> None:
    pieces.marking.begin_load()
    assert len(pieces.answer(Loaded).holders) > RETRIES


def sweep(pieces: Pieces) -> None:
    assert len(_swept(pieces).found) > SWEEP_ROWS_MAX // 2


def sweep_from_the_middle(pieces: Pieces) -> None:
    """Behind the position nearly all is published."""
    _swept(pieces, cursor=_early(pieces))


def sweep_past_what_waits(pieces: Pieces) -> None:
    _swept(
        pieces,
        skipped_topics={"paused": 1},
        skipped_keys=[("orders", f"key-{number}") for number in range(SKIPPED_KEYS_MAX)],
    )


def _swept(pieces: Pieces, *, cursor: int = FIRST_ID, **skipped: Any) -> Swept:
    pieces.marking.begin_sweep(SweepRequest(cursor=cursor, position=ROWS, rows_max=SWEEP_ROWS_MAX, **skipped))
    return pieces.answer(Swept)


# --- Settling


def mark(pieces: Pieces) -> None:
    pieces.settle(pieces.marking, Settlement(**_delivered(pieces)))


def delete(pieces: Pieces) -> None:
    pieces.settle(pieces.deleting, Settlement(**_delivered(pieces)))


def mark_recovered(pieces: Pieces) -> None:
    settlement = Settlement(
        **_delivered(pieces),
        delivered_pieces=[None] * BATCH_ROWS,
        # One dead letter in eight is replayed.
        recovered_replays=[(ROWS + 8 * number, 0, 1, None, "c0ffee") for number in range(1, 21)],
        transaction=1,
    )
    pieces.settle(pieces.marking, settlement)


def delete_recovered(pieces: Pieces) -> None:
    pieces.settle(
        pieces.deleting, Settlement(**_delivered(pieces), delivered_pieces=[None] * BATCH_ROWS, transaction=2)
    )


def every_outcome(pieces: Pieces) -> None:
    death = DeadLetter(DeathReason.FATAL, FAULT, "too large", 1, holds_key=True)
    replaying = _replaying(pieces, 50)
    settlement = Settlement(
        **_delivered(pieces),
        retries=[(record_id, Retry(FAULT, "again", 1, 5.0)) for record_id in pieces.outbox.take(50)],
        dead=[(record_id, death) for record_id in pieces.outbox.take(50)],
        replayed=[(letter_id, 0, 1, "a digest") for letter_id in replaying[:25]],
        died_again=[(letter_id, death, "a digest") for letter_id in replaying[25:]],
        out_of_retry=[pieces.outbox.first_pending_id + number for number in range(50)],
        storms=[("stormy", "why")],
        transaction=3,
    )
    pieces.settle(pieces.marking, settlement)


# --- Around the relay


def purge(pieces: Pieces) -> None:
    for cursor in (FIRST_ID, ROWS // 2):
        pieces.housekeeping.remove_published(cursor, PURGED_ROWS, DAY_SECONDS)


def purge_leftovers(pieces: Pieces) -> None:
    pieces.housekeeping.time_resolved(PURGED_ROWS)
    pieces.housekeeping.remove_resolved(PURGED_ROWS, DAY_SECONDS)
    pieces.housekeeping.remove_orphaned_retries(PURGED_ROWS)
    pieces.housekeeping.remove_old_starts(PURGED_ROWS)


def gauges(pieces: Pieces) -> None:
    assert pieces.housekeeping.measure().pending > 1_000


def status(pieces: Pieces) -> None:
    assert look(pieces.engine, "outboxd", "outbox", "default").pending > 1_000


def view_of_status(pieces: Pieces) -> None:
    ((pending, held),) = _read(pieces, "SELECT pending, held_keys FROM outboxd.status")
    assert pending > 1_000
    assert held == 1_000


def view_of_held_keys(pieces: Pieces) -> None:
    assert len(_read(pieces, "SELECT * FROM outboxd.held_keys")) > RETRIES


def functions_of_the_views(pieces: Pieces) -> None:
    """As the views ask of an outbox with a table of its own."""
    assert _read(pieces, "SELECT rows FROM outboxd.backlog_of('default')")[0][0] > 1_000
    assert len(_read(pieces, "SELECT * FROM outboxd.retried_keys('default')")) > RETRIES // 2


def _read(pieces: Pieces, statement: str) -> list[tuple[Any, ...]]:
    with pieces.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def copying(pieces: Pieces) -> None:
    waiting = pieces.copies.waiting()
    assert waiting
    pieces.copies.copied(waiting)


def _delivered(pieces: Pieces) -> dict[str, Any]:
    ids = pieces.outbox.take(BATCH_ROWS)
    return {"delivered_ids": ids, "delivered_partitions": [0] * len(ids), "delivered_offsets": ids}


def _replaying(pieces: Pieces, letters: int) -> list[int]:
    with pieces.outbox.database.connect() as connection:
        found = connection.execute(
            "SELECT id FROM outboxd.dead_letter WHERE status = 'replaying' ORDER BY id LIMIT %s", (letters,)
        ).fetchall()
    assert len(found) == letters
    return [int(str(row[0])) for row in found]


def _early(pieces: Pieces) -> int:
    """A position a little behind the first pending row."""
    first = pieces.outbox.first_pending_id
    return first + (ROWS - first) // 10


REPEATED: Mapping[str, Repeated] = {
    "fetch: forward": Repeated(forward, 5_200, 15_000),
    "fetch: forward from the beginning": Repeated(from_the_beginning, 5_200, 15_000),
    "fetch: forward, cut by bytes": Repeated(cut_by_bytes, 5_200, 15_000),
    "fetch: looking back into 2,000 gaps": Repeated(looking_back, 10_000, 30_000),
    "fetch: looking back past what is known": Repeated(looking_back_past_what_is_known, 10_300, 15_000),
    "fetch: 500 chosen": Repeated(chosen, 1_100, 5_000),
    "fetch: 100 replays": Repeated(replays, 1_100, 1_000),
    "fetch: replays after those that were listed": Repeated(replays_after, 1_100, 3_000),
    "fetch: 100 keys again": Repeated(by_key, 8_000, 12_000),
    "fetch: a topic again that goes one by one": Repeated(by_topic, 1_100, 3_000),
    "fetch: a topic that goes on": Repeated(catching_up, 7_000, 15_000),
    "fetch: delayed rows whose time came": Repeated(delayed, 1_100, 4_000),
    "fetch: due retries, discards and keys that are held": Repeated(retries_after, 1_100, 3_000),
    "fetch: everything at once": Repeated(everything, 15_000, 40_000),
    "load": Repeated(load, 3 * RETRIES, 10_000),
    "sweep": Repeated(sweep, SWEEP_ROWS_MAX + 1, 30_000),
    "sweep from the middle": Repeated(sweep_from_the_middle, SWEEP_ROWS_MAX + 1, 30_000),
    "sweep past a topic and keys that wait": Repeated(sweep_past_what_waits, SWEEP_ROWS_MAX + 1, 30_000),
    "settle: mark a batch": Repeated(mark, 5_001, 100_000),
    "settle: delete a batch": Repeated(delete, 5_001, 50_000),
    "settle: mark a batch of a former owner": Repeated(mark_recovered, 5_001, 100_000),
    "settle: delete a batch of a former owner": Repeated(delete_recovered, 5_001, 50_000),
    "settle: every outcome": Repeated(every_outcome, 5_100, 100_000),
    "purge": Repeated(purge, 5_001, 50_000),
    "purge: leftovers": Repeated(purge_leftovers, 3 * DEAD_LETTERS, 10_000),
    # What is dead above the newest pending row, which other statements left here, is passed over once.
    "gauges": Repeated(gauges, 10_001, 60_000),
    "status": Repeated(status, 100_001, 250_000),
    "view: status": Repeated(view_of_status, 10_001, 25_000),
    "view: held keys": Repeated(view_of_held_keys, 2 * RETRIES, 10_000),
    "view: tables of other outboxes": Repeated(functions_of_the_views, 10_001, 25_000),
    "copies of dead letters": Repeated(copying, DEAD_LETTERS, 5_000),
    "start": Repeated(Pieces.started, 100, 500),
    "lease": Repeated(Pieces.renewed, 100, 500),
}
