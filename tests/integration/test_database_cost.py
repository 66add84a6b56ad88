"""What relaying costs the application's database: statements, write-ahead log and writes a row, and while it idles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.children import wait_for
from tests.support.rig import Rig
from tests.support.statement_counts import StatementCounts

ROWS = 20_000
PAYLOAD_BYTES = 512
STATEMENTS_A_ROW_MAX = 0.02
OTHER_WRITES_MAX = 100
"""The lease, the start and its end, the progress of transactions: by time and by batch, not by row."""


@dataclass(frozen=True)
class Mode:
    """How rows are relayed, and how many bytes of write-ahead log one may cost."""

    after_publish: str
    delivery: str
    wal_bytes_max: int


MODES = {
    # A deletion writes where the row was, 54 bytes and a header of each batch's share: no index, no copy of the row.
    "delete": Mode("delete", "at-least-once", 100),
    # A mark writes the row anew, with its payload of 512 bytes, and an entry of the primary key.
    "mark": Mode("mark", "at-least-once", 1_000),
    "exactly-once": Mode("delete", "exactly-once", 100),
}


def writes(rig: Rig) -> dict[str, int]:
    """Rows inserted, updated and deleted so far in outboxd's tables, by table and kind."""
    found: list[tuple[str, int]] = rig.sql.execute(
        "SELECT t.relname || ' ' || w.kind, w.rows FROM pg_stat_user_tables AS t CROSS JOIN LATERAL (VALUES"
        " ('inserted', t.n_tup_ins), ('updated', t.n_tup_upd), ('deleted', t.n_tup_del)) AS w(kind, rows)"
        " WHERE t.schemaname = 'outboxd' AND w.rows > 0"
    ).fetchall()  # type: ignore[assignment]  # psycopg does not know what is selected
    return dict(found)


@pytest.mark.parametrize("name", MODES)
def test_a_row_costs_a_small_share_of_a_statement_and_one_small_write(rig: Rig, name: str) -> None:
    mode = MODES[name]
    counts = StatementCounts(rig.database, rig.sql)
    # The witness writes beside each row, which is no cost of the daemon's.
    rig.sql.execute("ALTER TABLE outboxd.outbox DISABLE TRIGGER note_written")
    rig.insert_many([rig.topic() for _ in range(3)], ROWS, keys=1_000, payload_bytes=PAYLOAD_BYTES)
    written = {"outbox inserted": ROWS}
    wait_for(lambda: writes(rig) == written, timeout_seconds=10, what="the statistics are up to date")
    before = counts.now()

    ended = rig.daemon(relay={"after_publish": mode.after_publish, "delivery": mode.delivery}).run("--until-empty")

    cost = counts.now() - before
    assert ended.code == 0, ended.err
    assert rig.pending() == 0
    assert 0 < cost.statements <= STATEMENTS_A_ROW_MAX * ROWS, cost
    # Less than this no record of the log can be.
    assert 24 * ROWS < cost.wal_bytes <= mode.wal_bytes_max * ROWS, cost
    kind = "outbox deleted" if mode.after_publish == "delete" else "outbox updated"
    wait_for(lambda: writes(rig).get(kind, 0) >= ROWS, timeout_seconds=10, what="every row is written to")
    others = {what: count for what, count in writes(rig).items() if what not in written}
    assert others.pop(kind) == ROWS, "one write a row"
    assert 0 < sum(others.values()) <= OTHER_WRITES_MAX, others


@pytest.mark.parametrize("listens", [False, True], ids=["polling", "listening"])
def test_an_idle_daemon_asks_at_most_twelve_statements_a_second_or_two_where_it_listens_whatever_waits(
    rig: Rig, listens: bool
) -> None:
    counts = StatementCounts(rig.database, rig.sql)
    # A topic that is paused, a row whose time has not come, a key that is held: nothing of it is asked for again.
    held, paused = rig.topic(prefix="held", config={"max.message.bytes": "5000"}), rig.topic(prefix="paused")
    rig.sql.execute("SELECT outboxd.pause(%s)", (paused,))
    rig.insert_many([paused], 5_000, keys=100)
    rig.insert(held, available_at="2999-01-01")
    if not listens:
        # What is held makes a daemon that listens poll as well: nobody notifies it of a replay or a discard.
        rig.insert(held, "poison", b"x" * 6_000)
        rig.insert(held, "poison")
    daemon = rig.daemon(
        [{"topic": "held-*", "on_dead_letter": "hold-key"}],
        http={"listen": "127.0.0.1:0"},
        relay={"listen": listens},
    )
    daemon.start()
    daemon.wait_for_event("owner")
    if listens:
        daemon.wait_for_event("listening")
    else:
        rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE holds_key")
    # What the start and a first sweep ask is over then.
    counts.of_seconds(2)
    seconds = 10
    cost = counts.of_seconds(seconds)
    assert 0 < cost.statements <= seconds * (2 if listens else 12), cost
    assert rig.pending() == (5_001 if listens else 5_002)


def test_rows_that_are_scheduled_for_later_are_not_passed_over_by_each_fetch(rig: Rig) -> None:
    rows = 20_000
    counts = StatementCounts(rig.database, rig.sql)
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    daemon.wait_for_event("owner")
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload, available_at)"
        " SELECT 'mail', i::text, 'x', now() + interval '1 day' FROM generate_series(1, %s) AS i",
        (rows,),
    )

    def read_in_a_second() -> int:
        before = rows_read(rig)
        counts.of_seconds(1)
        return rows_read(rig) - before

    # Ten fetches, and the statistics are told once a second at most.
    wait_for(lambda: rows_read(rig) >= rows, timeout_seconds=20, what="the rows are seen")
    wait_for(lambda: read_in_a_second() < rows, timeout_seconds=20, what="they are not read again")
    assert max(read_in_a_second() for _ in range(3)) < rows


def rows_read(rig: Rig) -> int:
    return rig.count("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_pending_idx'")
