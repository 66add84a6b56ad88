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
