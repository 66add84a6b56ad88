"""Two outboxes of one schema have the same ids, each in its own table: neither sees or touches what is the other's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboxd.policy.blame.outcomes import DeadLetter, DeathReason
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.content import content_digest
from outboxd.policy.rows.records import FIRST_ID, Arm
from tests.contract.stores import PostgresBench
from tests.support.postgres_fixtures import Database

DEATH = DeadLetter(DeathReason.FATAL, fault_of(10), "10 MSG_SIZE_TOO_LARGE: too large", 1, holds_key=False)
STATE = """
    SELECT array_agg(t ORDER BY t) FROM (
        SELECT 'retry ' || outbox_id || ' ' || attempts AS t FROM outboxd.retry WHERE outbox = 'other'
        UNION ALL
        SELECT 'letter ' || outbox_id || ' ' || status || ' ' || attempts FROM outboxd.dead_letter
         WHERE outbox = 'other'
        UNION ALL
        SELECT 'pause ' || topic_pattern FROM outboxd.control WHERE outbox = 'other'
        UNION ALL
        SELECT 'progress ' || settled_transaction FROM outboxd.progress WHERE outbox = 'other'
    ) AS t"""


@pytest.fixture
def bench(database: Database) -> Iterator[PostgresBench]:
    made = PostgresBench(database)
    yield made
    made.close()


def give_the_other_outbox(bench: PostgresBench, *ids: int) -> None:
    """Retries that are due, and letters that are replayed or hold their keys, under the ids of these rows."""
    for row_id in ids:
        bench.execute(
            "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, first_failed_at, error_code,"
            " error_message) VALUES ('other', %s, 3, now(), now(), 'X', 'x')",
            row_id,
        )
        for status in ("dead", "replaying"):
            bench.execute(
                "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, created_at, attempts,"
                " reason, error_code, error_message, first_failed_at, daemon, holds_key, status)"
                " SELECT 'other', o.id, CASE WHEN %s = 'replaying' THEN o.event_id ELSE gen_random_uuid() END,"
                " o.topic, o.key, now(), 1, 'fatal', 'X', 'x', now(), 'd', true, %s FROM outboxd.outbox AS o"
                " WHERE o.id = %s",
                status, status, row_id,
            )  # fmt: skip
    bench.execute("INSERT INTO outboxd.control (outbox, topic_pattern, who) VALUES ('other', 'orders', 'ops')")
    bench.execute("INSERT INTO outboxd.progress (outbox, shard, settled_transaction) VALUES ('other', 0, 7)")


def state_of_the_other(database: Database) -> object:
    with database.connect() as connection:
        return connection.execute(STATE).fetchone()


def test_nothing_of_the_other_outbox_is_shown(bench: PostgresBench) -> None:
    bench.take_over()
    rows = [bench.insert("orders", key) for key in "abc"]
    give_the_other_outbox(bench, *rows)

    fetched, loaded = bench.fetch(holding_after=FIRST_ID), bench.load()

    assert [record.id for record in fetched.records] == rows
    assert (fetched.due_ids, fetched.replays, fetched.pauses) == ([], [], [])
    assert fetched.holding is not None
    assert list(fetched.holding.letters) == []
    assert (loaded.holders, loaded.pauses, loaded.settled_transaction) == ([], [], 0)
    assert not loaded.fenced


def test_nothing_of_the_other_outbox_is_changed(bench: PostgresBench, database: Database) -> None:
    token = bench.take_over()
    delivered, dead, replayed, recovered = (bench.insert("orders", key) for key in "abcd")
    bench.settle(token, dead=[(replayed, DEATH), (recovered, DEATH)])
    letters = [letter for row in (replayed, recovered) if (letter := bench.letter(row))]
    for letter_id, _ in letters:
        bench.replay(letter_id)
    shown = bench.fetch(replay_ids=[letters[0][0]]).records
    (replay,) = (each for each in shown if each.arm == Arm.REPLAY)
    content = content_digest(replay)
    bench.execute(
        "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE VALUES"
        f" ({replayed}, 'orders', 'c', ''), ({recovered}, 'orders', 'd', '')"
    )
    give_the_other_outbox(bench, delivered, dead, replayed, recovered)
    before = state_of_the_other(database)

    settled = bench.settle(
        token,
        delivered_ids=[delivered],
        delivered_partitions=[0],
        delivered_offsets=[7],
        out_of_retry=[delivered, replayed],
        dead=[(dead, DEATH)],
        died_again=[(letters[0][0], DEATH, content)],
        recovered_replays=[(recovered, 0, 9, None, None)],
        storms=[("invoices", "a storm")],
        transaction=9,
    )

    assert (settled.matched_rows, settled.fenced) == (2, False)
    assert state_of_the_other(database) == before
