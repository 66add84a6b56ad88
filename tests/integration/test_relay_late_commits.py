"""Rows that commit late or out of id order: none is skipped, and where writers lock their aggregate none overtakes."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from outboxd.policy.rows.records import FIRST_ID
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.rig import Rig

LOCKING_ROWS = int(os.environ.get("OUTBOXD_TEST_LOCKING_ROWS", "20000"))
"""More rows for a thorough run: OUTBOXD_TEST_LOCKING_ROWS=200000."""
DRAWN_ROWS = int(os.environ.get("OUTBOXD_TEST_DRAWN_ROWS", "4000"))
OPEN_SECONDS = float(os.environ.get("OUTBOXD_TEST_OPEN_SECONDS", "8"))
"""How long one transaction stays open among the others; a thorough run: 60."""
WRITERS = 8
SWEEP_SECONDS = 2.0


def insert(connection: psycopg.Connection[tuple[object, ...]], topic: str, key: str = "k") -> int:
    row = connection.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, 'x') RETURNING id", (topic, key)
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_row_that_commits_after_newer_ones_were_sent_goes_soon_after_its_commit(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    with rig.database.connect(autocommit=False) as slow:
        late = insert(slow, topic)
        early = [rig.insert(topic) for _ in range(5)]
        rig.wait_until_settled()
        slow.commit()
        rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", late, timeout_seconds=3)

    assert daemon.stop().code == 0
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [*early, late]
    rig.check(unordered=[late]).assert_holds()


def test_a_prepared_transaction_counts_as_open(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    with rig.database.connect(autocommit=False) as slow:
        late = insert(slow, topic)
        rig.insert(topic)
        rig.wait_until_settled()
        slow.execute("PREPARE TRANSACTION 'late'")
        slow.commit()
    # Several looks at the gap pass while the transaction has no session; none may give the id up.
    for _ in range(10):
        row = rig.insert(topic)
        rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", row)

    rig.sql.execute("COMMIT PREPARED 'late'")

    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", late, timeout_seconds=3)
    assert daemon.stop().code == 0
    rig.check(unordered=[late]).assert_holds()


def test_a_writer_that_is_stopped_between_drawing_its_id_and_its_first_write_is_waited_for(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    # A BEFORE trigger stands after the id is drawn and before the row, and with it the transaction's id, is there.
    rig.sql.execute(
        "CREATE FUNCTION public.stand_still() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN IF NEW.key = 'slow' THEN PERFORM pg_advisory_lock(1); END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER stand_still BEFORE INSERT ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.stand_still()"
    )
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    rig.sql.execute("SELECT pg_advisory_lock(1)")
    slow = rig.database.connect()
    found: list[int] = []
    writer = threading.Thread(target=lambda: found.append(insert(slow, topic, "slow")))
    writer.start()
    rig.wait_until(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
    )
    for _ in range(10):
        row = rig.insert(topic)
        rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", row)

    rig.sql.execute("SELECT pg_advisory_unlock(1)")
    writer.join(10)
    slow.close()

    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", found[0], timeout_seconds=3)
    assert daemon.stop().code == 0
    rig.check().assert_holds()


@contextmanager
def writing(threads: list[threading.Thread]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(300)


@pytest.mark.timeout(400)
def test_ids_drawn_long_before_their_insert_are_found_by_the_sweep_within_its_interval(rig: Rig) -> None:
    topic = rig.topic(partitions=6)
    rig.sql.execute("CREATE TABLE public.committed (id bigint, at timestamptz)")
    daemon = rig.daemon(relay={"sweep_interval": f"{SWEEP_SECONDS}s"})
    daemon.start()
    daemon.wait_for_event("owner")

    def write(seed: int) -> None:
        dice = random.Random(seed)
        drawn: list[int] = []
        with rig.database.connect() as connection:
            for number in range(DRAWN_ROWS // WRITERS):
                if dice.random() < 0.1:
                    row = connection.execute(
                        "SELECT nextval('outboxd.outbox_id_seq') FROM generate_series(1, 3)"
                    ).fetchall()
                    drawn += [int(str(entry[0])) for entry in row]
                with connection.transaction():
                    if drawn and dice.random() < 0.3:
                        row_id = drawn.pop(dice.randrange(len(drawn)))
                        connection.execute(
                            "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE"
                            " VALUES (%s, %s, %s, 'drawn')",
                            (row_id, topic, f"drawn-{seed}-{number}"),
                        )
                    else:
                        row_id = insert(connection, topic, f"key-{seed}-{number % 10}")
                    connection.execute("INSERT INTO public.committed VALUES (%s, clock_timestamp())", (row_id,))

    with rig.database.connect(autocommit=False) as slow:
        late = insert(slow, topic, "open for long")
        opened = threading.Event()
        with writing([threading.Thread(target=write, args=(seed,)) for seed in range(WRITERS)]):
            opened.wait(OPEN_SECONDS)
        slow.execute("INSERT INTO public.committed VALUES (%s, clock_timestamp())", (late,))
        slow.commit()
    rig.wait_until_settled(timeout_seconds=SWEEP_SECONDS * 2 + 2)
    assert daemon.stop().code == 0

    rig.check().assert_holds()
    slowest = rig.count(
        "SELECT max(extract(epoch FROM o.published_at - c.at) * 1000)::int FROM public.committed AS c"
        " JOIN outboxd.outbox AS o USING (id)"
    )
    assert slowest <= (SWEEP_SECONDS + 1) * 1000
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE payload = 'drawn'") > 0


def test_rows_whose_ids_went_back_behind_one_that_was_given_by_hand_go_at_their_commit_again(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    daemon = rig.daemon(relay={"sweep_interval": "500ms"})
    daemon.start()
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE"
        " VALUES (1000000, %s, 'by hand', 'x')",
        (topic,),
    )
    rig.wait_until_settled()

    def writes_until_reading_goes_back() -> bool:
        rig.insert(topic)
        rig.wait_until_settled()
        return bool(daemon.events("reading_went_back"))

    wait_for(writes_until_reading_goes_back, timeout_seconds=30.0, what="reading to go back")
    found = rig.count("SELECT max(id) FROM outboxd.outbox WHERE id < 1000000")
    for _ in range(20):
        rig.insert(topic)
        rig.wait_until_settled()

    assert daemon.stop().code == 0
    rows_found = sum(event["rows"] for event in daemon.events("late_rows_found"))
    assert rows_found <= found, "what came after is read forward"
    rig.check(unordered=range(1, found + 1)).assert_holds()


@pytest.mark.timeout(600)
def test_writers_that_lock_their_aggregate_see_their_commit_order_whatever_the_race(rig: Rig) -> None:
    topic = rig.topic(partitions=6)
    keys = 50
    daemon = rig.daemon(relay={"batch_rows": 200, "poll_interval_max": "5ms"})
    daemon.start()
    daemon.wait_for_event("owner")

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with rig.database.connect() as connection:
            left = LOCKING_ROWS // WRITERS
            while left > 0:
                with connection.transaction():
                    # Two aggregates a transaction, so that a lower id of one key commits after a higher one of another.
                    for key in sorted(dice.sample(range(keys), 2)):
                        connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
                        connection.execute(
                            "INSERT INTO outboxd.outbox (topic, key, payload)"
                            " SELECT %s, %s, 'x' FROM generate_series(1, %s)",
                            (topic, f"key-{key}", dice.randint(1, 5)),
                        )
                left -= 6

    with writing([threading.Thread(target=write, args=(seed,)) for seed in range(WRITERS)]):
        pass
    rig.wait_until_settled(timeout_seconds=120)
    assert daemon.stop().code == 0

    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.delivered > LOCKING_ROWS * 0.8


def test_rows_whose_ids_are_below_one_go_in_order_at_a_start_and_are_replayed(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    insert_at = (
        "INSERT INTO outboxd.outbox (id, topic, key, payload, headers) OVERRIDING SYSTEM VALUE"
        " VALUES (%s, %s, %s, 'x', %s::jsonb)"
    )
    for row_id in (-5, 0, 3, -9):
        rig.sql.execute(insert_at, (row_id, topic, "k", "{}"))
    rig.sql.execute(insert_at, (-7, topic, "bad", '[["one"]]'))
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    rig.wait_until_settled()
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")

    rig.sql.execute("SELECT outboxd.replay(array_agg(id), true) FROM outboxd.dead_letter")

    rig.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter")
    assert daemon.stop().code == 0
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [-9, -5, 0, 3, -7]


def test_the_lowest_id_of_all_is_sent(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    rig.insert(topic)
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (id, topic, key, payload) OVERRIDING SYSTEM VALUE VALUES (%s, %s, 'k', 'x')",
        (FIRST_ID, topic),
    )
    assert rig.daemon().run("--until-empty").code == 0
    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == [FIRST_ID, 1]
    rig.check(unordered=[FIRST_ID]).assert_holds()
