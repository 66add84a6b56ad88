"""Large backlogs that wait: memory stays bounded, other keys go on as fast, and what waited goes in order.

Small here, so that every run has them; `OUTBOXD_TEST_LARGE=full` takes the sizes that a bad day has. Then `-s` shows
the figures.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from outboxd.policy.fetch.limits import REPLAYS_MAX
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.rig import Rig
from tests.support.rows import value

IS_FULL = os.environ.get("OUTBOXD_TEST_LARGE") == "full"
SECONDS_MAX = 1_500.0 if IS_FULL else 60.0
MEMORY_MIB_MAX = 64.0
"""What a backlog that waits may cost: its rows, held in memory, would take far more in the full size."""
RATE_SHARE_MIN = 0.25
"""Of the rate without a backlog; the machine is shared with others."""
DELAY_SECONDS_MAX = 0.5
"""Of nineteen rows in twenty, from commit or the first mark to mark, beside retries; without them some 25 ms."""
HOLD_KEY = {"topic": "held-*", "on_dead_letter": "hold-key"}
OTHERS = 20_000 if IS_FULL else 2_000
LIMIT = {"max.message.bytes": "5000"}

pytestmark = pytest.mark.timeout(3_600 if IS_FULL else 180)


def size(modest: int, full: int) -> int:
    return full if IS_FULL else modest


def tell(**figures: object) -> None:
    sys.stderr.write(f"{os.environ.get('PYTEST_CURRENT_TEST', '').split('::')[-1]}: {figures}\n")


def memory_mib(daemon: DaemonProcess) -> float:
    """The most memory that the daemon ever had."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / 1024


def rate_of_others(rig: Rig, topic: str, *, keys: int = 500) -> float:
    """Rows a second, from their commit to their marks, of rows that nothing stands before."""
    base = rig.count("SELECT coalesce(max(id), 0) FROM outboxd.outbox")
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'other-' || (i %% %s), 'x'"
        " FROM generate_series(1, %s) AS i",
        (topic, keys, OTHERS),
    )
    rig.wait_until(
        "SELECT count(*) = 0 FROM outboxd.outbox WHERE id > %s AND published_at IS NULL AND key LIKE 'other-%%'",
        base,
        timeout_seconds=SECONDS_MAX,
    )
    seconds: float = value(
        rig.sql,
        "SELECT extract(epoch FROM max(published_at) - max(created_at))::float8 FROM outboxd.outbox WHERE id > %s",
        base,
    )
    return OTHERS / max(seconds, 0.001)


def best_rate_of_others(rig: Rig, topic: str) -> float:
    """The same, the best of three: what else the machine has to do may slow one of them, and is no matter of ours."""
    return max(rate_of_others(rig, topic) for _ in range(3))


def wait_until_passed(rig: Rig, topic: str) -> float:
    """Have the relay read past everything that is there; return how many seconds that takes."""
    marker = rig.insert(topic, "other-marker")
    rig.wait_until(
        "SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", marker, timeout_seconds=SECONDS_MAX
    )
    seconds: float = value(
        rig.sql,
        "SELECT extract(epoch FROM published_at - created_at)::float8 FROM outboxd.outbox WHERE id = %s",
        marker,
    )
    return seconds


def inversions(rig: Rig) -> int:
    """Published rows whose place in the log is before that of an earlier row of their key."""
    return rig.count(
        "SELECT count(*) FROM (SELECT published_offset - lag(published_offset) OVER ("
        "PARTITION BY topic, key, published_partition ORDER BY id) AS step FROM outboxd.outbox"
        " WHERE key IS NOT NULL AND published_offset IS NOT NULL) AS s WHERE step <= 0"
    )


def assert_bounded(before: tuple[float, float], after: tuple[float, float]) -> None:
    """Compare (rate, memory) with a backlog to those without."""
    assert after[0] > before[0] * RATE_SHARE_MIN
    assert after[1] - before[1] < MEMORY_MIB_MAX


def test_a_held_key_with_a_long_backlog_costs_no_memory_and_no_speed_and_its_rows_go_in_order_when_released(
    rig: Rig,
) -> None:
    topic = rig.topic(partitions=3, config=LIMIT, prefix="held")
    daemon = rig.daemon([HOLD_KEY])
    daemon.start()
    dead = rig.insert(topic, "held", b"x" * 6_000)
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE holds_key")
    rate_of_others(rig, topic)
    before = rate_of_others(rig, topic), memory_mib(daemon)
    rows = size(1_500, 100_000)
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'held', convert_to(rpad(i::text, 1000), 'UTF8')"
        " FROM generate_series(1, %s) AS i",
        (topic, rows),
    )
    rig.sql.execute("ANALYZE outboxd.outbox")
    passed = wait_until_passed(rig, topic)
    after = best_rate_of_others(rig, topic), memory_mib(daemon)

    assert_bounded(before, after)
    assert rig.pending() == rows
    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter")
    rig.wait_until_settled(timeout_seconds=SECONDS_MAX)
    released: float = value(
        rig.sql,
        "SELECT extract(epoch FROM max(published_at) - (SELECT resolved_at FROM outboxd.dead_letter))::float8"
        " FROM outboxd.outbox WHERE key = 'held'",
    )
    tell(rows=rows, before=before, after=after, passed_seconds=passed, released_seconds=released)
    assert memory_mib(daemon) - before[1] < MEMORY_MIB_MAX
    assert daemon.stop().code == 0
    records = [id_of(record) for record in rig.kafka.consume(topic) if record.key == b"held"]
    assert records[0] == dead
    assert records[1:] == sorted(records[1:])
    assert len(records) == rows + 1
    assert inversions(rig) == 0


def test_a_paused_topic_with_a_long_backlog_costs_no_memory_and_no_speed_and_its_rows_go_in_order_when_resumed(
    rig: Rig,
) -> None:
    paused, topic = rig.topic(partitions=3, prefix="paused"), rig.topic(partitions=3)
    daemon = rig.daemon()
    daemon.start()
    rate_of_others(rig, topic)
    before = rate_of_others(rig, topic), memory_mib(daemon)
    rig.sql.execute("SELECT outboxd.pause(%s)", (paused,))
    rows = size(10_000, 1_000_000)
    # Not by the witness: it would make as many rows again.
    rig.sql.execute("ALTER TABLE outboxd.outbox DISABLE TRIGGER note_written")
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'key-' || (i %% 1000), convert_to(rpad(i::text,"
        " 200), 'UTF8') FROM generate_series(1, %s) AS i",
        (paused, rows),
    )
    rig.sql.execute("ANALYZE outboxd.outbox")
    passed = wait_until_passed(rig, topic)
    after = best_rate_of_others(rig, topic), memory_mib(daemon)

    assert_bounded(before, after)
    assert rig.pending() == rows
    assert sum(rig.kafka.end_offsets(paused).values()) == 0
    resumed_at = value(rig.sql, "SELECT clock_timestamp()")
    rig.sql.execute("SELECT outboxd.resume(%s)", (paused,))
    rig.wait_until_settled(timeout_seconds=SECONDS_MAX)
    seconds: float = value(
        rig.sql,
        "SELECT extract(epoch FROM max(published_at) - %s::timestamptz)::float8 FROM outboxd.outbox",
        resumed_at,
    )
    tell(rows=rows, before=before, after=after, passed_seconds=passed, resumed_rate=rows / seconds)
    assert memory_mib(daemon) - before[1] < 3 * MEMORY_MIB_MAX, "relaying has its own bound, max_in_flight_rows"
    assert daemon.stop().code == 0
    assert sum(rig.kafka.end_offsets(paused).values()) == rows
    assert inversions(rig) == 0


def insert_due_retries(rig: Rig, topic: str) -> int:
    """Commit rows of as many keys that an owner before had tried, each with a successor; return how many."""
    rows = size(1_000, 10_000)
    rig.insert_many([topic], rows, keys=rows)
    rig.sql.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " SELECT 'default', id, 3, now(), 'REQUEST_TIMED_OUT', 'as it was' FROM outboxd.outbox"
    )
    rig.insert_many([topic], rows, keys=rows)
    return rows


def test_retries_that_are_all_due_at_a_restart_leave_other_keys_their_speed_and_go_before_their_successors(
    rig: Rig,
) -> None:
    topic = rig.topic(partitions=3)
    rows = insert_due_retries(rig, topic)
    daemon = rig.daemon()
    daemon.start()
    daemon.wait_for_event("owner", held_records=rows)
    during = rate_of_others(rig, topic)
    rig.wait_until_settled(timeout_seconds=SECONDS_MAX)
    all_seconds: float = value(
        rig.sql, "SELECT extract(epoch FROM max(published_at) - min(published_at))::float8 FROM outboxd.outbox"
    )
    peak = memory_mib(daemon)
    rate_of_others(rig, topic)
    without = rate_of_others(rig, topic), memory_mib(daemon)
    tell(rows=rows, during=during, without=without, peak_mib=peak, all_seconds=all_seconds)

    assert daemon.stop().code == 0
    assert during > without[0] * RATE_SHARE_MIN / 2, "they share the producer with twice as many others"
    assert peak - without[1] < MEMORY_MIB_MAX
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    assert rig.dead_letters() == {}
    rig.check().assert_holds()


def test_retries_that_are_all_due_at_a_restart_do_not_delay_the_traffic_of_other_keys(rig: Rig) -> None:
    topic = rig.topic(partitions=3)
    rows = insert_due_retries(rig, topic)
    base = rig.count("SELECT max(id) FROM outboxd.outbox")
    daemon = rig.daemon()
    daemon.start()
    daemon.wait_for_event("owner", held_records=rows)
    written, pace = 0, threading.Event()
    while rig.count(
        "SELECT count(*) FROM (SELECT FROM outboxd.outbox WHERE id <= %s AND published_at IS NULL LIMIT 1) AS waiting",
        base,
    ):
        for _ in range(20):
            rig.insert(topic, f"other-{written % 500}")
            written += 1
            # A pace, not a wait: some hundred rows a second, each in a transaction of its own.
            pace.wait(0.002)
    rig.wait_until_settled(timeout_seconds=SECONDS_MAX)
    delays: list[float] = value(
        rig.sql,
        # From the first mark on: before it the client only finds its brokers.
        "SELECT percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM published_at"
        " - greatest(created_at, (SELECT min(published_at) FROM outboxd.outbox)))::float8)"
        " FROM outboxd.outbox WHERE id > %s",
        base,
    )
    tell(retries=rows, others=written, delay_seconds_p50_p95_max=delays)

    assert daemon.stop().code == 0
    assert delays[1] < DELAY_SECONDS_MAX
    rig.check().assert_holds()


def insert_with_poison(rig: Rig, topic: str) -> tuple[int, int]:
    """Commit rows of many keys, some of them too large for their topic, each of another key; return how many."""
    rows, keys, poison = size(5_000, 100_000), size(100, 500), size(10, 50)
    step = rows // poison - 1
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'key-' || ((i * 7919) %% %s),"
        " CASE WHEN i %% %s = 7 AND i / %s < %s THEN convert_to(repeat('x', 6000), 'UTF8')"
        " ELSE convert_to(rpad(i::text, 100), 'UTF8') END FROM generate_series(1, %s) AS i",
        (topic, keys, step, step, poison, rows),
    )
    rig.sql.execute("ANALYZE outboxd.outbox")
    return rows, poison


def test_poison_rows_among_many_die_alone_and_all_others_are_delivered(rig: Rig) -> None:
    topic = rig.topic(partitions=6, config=LIMIT)
    rows, poison = insert_with_poison(rig, topic)

    ended = rig.daemon().run("--until-empty", timeout_seconds=SECONDS_MAX)

    assert ended.code == 0, ended.err
    verdict = rig.check()
    verdict.assert_holds(dead=poison)
    assert verdict.delivered == rows - poison
    tell(delivered=verdict.delivered, dead=verdict.dead, duplicates=verdict.duplicates)


def test_poison_rows_hold_the_later_rows_of_their_keys_which_go_in_order_after_a_replay_or_a_discard(rig: Rig) -> None:
    topic = rig.topic(partitions=6, config=LIMIT, prefix="held")
    rows, poison = insert_with_poison(rig, topic)
    behind: Sequence[int] = value(
        rig.sql,
        "SELECT array_agg(o.id) FROM outboxd.outbox AS o JOIN outboxd.outbox AS p ON p.key = o.key AND p.id < o.id"
        " AND octet_length(p.payload) = 6000",
    )
    daemon = rig.daemon([HOLD_KEY])
    daemon.start()
    rig.wait_until_settled(but=len(behind), timeout_seconds=SECONDS_MAX)
    rig.wait_until("SELECT count(*) = %s FROM outboxd.dead_letter WHERE holds_key", poison)

    pending = value(rig.sql, "SELECT array_agg(id) FROM outboxd.outbox WHERE published_at IS NULL")
    assert sorted(pending) == sorted(behind)
    assert rig.count("SELECT count(*) FROM outboxd.held_keys") == poison
    delivered = rig.count("SELECT count(published_at) FROM outboxd.outbox")
    assert delivered == rows - poison - len(behind)

    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended' WHERE id % 2 = 0")
    rig.sql.execute("SELECT outboxd.replay(array_agg(id)) FROM outboxd.dead_letter WHERE id % 2 = 0")
    rig.sql.execute("SELECT outboxd.discard(array_agg(id), 'gone') FROM outboxd.dead_letter WHERE id % 2 = 1")
    rig.wait_until_settled(timeout_seconds=SECONDS_MAX)
    wait_for(
        lambda: rig.count("SELECT count(*) FROM outboxd.dead_letter WHERE status = 'replaying'") == 0,
        timeout_seconds=30,
        what="all replays are delivered",
    )
    assert daemon.stop().code == 0
    letters = rig.dead_letters()
    replayed = [row_id for row_id, letter in letters.items() if letter["status"] == "replayed"]
    assert len(letters) == poison
    assert len(replayed) == sum(letter["id"] % 2 == 0 for letter in letters.values())
    verdict = rig.check(edited=replayed)
    verdict.assert_holds(dead=poison - len(replayed))
    assert verdict.delivered == rows - poison + len(replayed)
    tell(rows=rows, held=len(behind), replayed=len(replayed), discarded=poison - len(replayed))


def test_a_bulk_replay_that_a_new_owner_finds_is_taken_so_many_at_a_time_and_all_of_it_is_sent(rig: Rig) -> None:
    topic = rig.topic()
    letters = REPLAYS_MAX + size(1_000, 200_000)
    rig.sql.execute(
        "INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, payload, created_at, attempts,"
        " reason, error_code, error_message, status)"
        " SELECT 'default', i, gen_random_uuid(), %s, 'key-' || i, 'x', now(), 1, 'fatal', 'MSG_SIZE_TOO_LARGE',"
        " 'as it was', 'replaying' FROM generate_series(1, %s) AS i",
        (topic, letters),
    )
    daemon = rig.daemon()

    ended = daemon.run("--until-empty", timeout_seconds=SECONDS_MAX)

    assert ended.code == 0, ended.err
    assert daemon.events("owner")[0]["held_records"] == REPLAYS_MAX
    assert rig.count("SELECT count(*) FROM outboxd.dead_letter WHERE status = 'replayed'") == letters
    assert sum(rig.kafka.end_offsets(topic).values()) == letters
