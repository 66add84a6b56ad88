"""A leader is away, with more rows than memory takes: the topics, and the partitions, of other brokers go on."""

from __future__ import annotations

from pathlib import Path

from outboxd.policy.partitioners import DEFAULT_PARTITIONER, Placement
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.mock_broker import MockCluster
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

TWO = Placement(DEFAULT_PARTITIONER, 2)
OUT_OF_ORDER = (
    "SELECT count(*) FROM (SELECT published_offset < lag(published_offset)"
    " OVER (PARTITION BY key ORDER BY id) AS is_wrong FROM outboxd.outbox) AS pairs WHERE is_wrong"
)
INSERT = (
    "INSERT INTO outboxd.outbox (topic, key, payload)"
    " SELECT %s, 'key-' || i, convert_to(repeat('x', 900), 'UTF8') FROM generate_series(1, %s) AS i"
)


def test_a_topic_without_a_leader_that_fills_memory_holds_up_no_other_for_long(
    database: Database, tmp_path: Path
) -> None:
    def is_published(topic: str, rows: int) -> bool:
        found = "SELECT count(published_at) >= %s FROM outboxd.outbox WHERE topic = %s"
        return bool(value(sql, found, rows, topic))

    with database.connect() as sql, MockCluster(2) as mock:
        for leader, topic in enumerate(("sick", "well"), 1):
            mock.create_topic(topic, partitions=1)
            mock.set_leader(topic, 0, leader)
        daemon = DaemonProcess(
            tmp_path, {"database": {"url": database.url}, "kafka": {"bootstrap.servers": mock.bootstrap}}
        )
        daemon.start()
        try:
            for topic in ("sick", "well"):
                sql.execute(INSERT, (topic, 1))
                wait_for(lambda topic=topic: is_published(topic, 1), timeout_seconds=30, what=f"a row of {topic}")  # type: ignore[misc]  # bound here
            mock.set_down(1)
            sql.execute(INSERT, ("sick", 20_000))
            sql.execute(INSERT, ("well", 3_000))
            wait_for(lambda: is_published("well", 3_001), timeout_seconds=40, what="the other topic's rows")
            assert daemon.wait_for_event("breaker_opened")["topic"] == "sick"
            assert not is_published("sick", 2)
            mock.set_up(1)
            wait_for(lambda: is_published("sick", 20_001), timeout_seconds=60, what="the sick topic's rows")
            assert daemon.stop().code == 0
        finally:
            daemon.kill()


def test_a_partition_without_a_leader_that_fills_memory_holds_up_its_own_keys_only(
    database: Database, tmp_path: Path
) -> None:
    keys, rows_per_key = 50, 400
    with database.connect() as sql, MockCluster(2) as mock:
        mock.create_topic("half", partitions=2)
        for partition, leader in enumerate((1, 2)):
            mock.set_leader("half", partition, leader)
        daemon = DaemonProcess(
            tmp_path, {"database": {"url": database.url}, "kafka": {"bootstrap.servers": mock.bootstrap}}
        )
        daemon.start()
        try:
            insert = (
                "INSERT INTO outboxd.outbox (topic, key, payload) SELECT 'half', 'key-' || i %% %s::int,"
                " convert_to(repeat('x', 900), 'UTF8') FROM generate_series(1, %s) AS i"
            )
            sql.execute(insert, (keys, keys * 2))
            published = "SELECT count(published_at) FROM outboxd.outbox"
            wait_for(lambda: value(sql, published) == keys * 2, timeout_seconds=30, what="the first rows")
            well_keys = value(sql, "SELECT count(DISTINCT key) FROM outboxd.outbox WHERE published_partition = 1")
            assert 0 < well_keys < keys
            mock.set_down(1)
            sql.execute(insert, (keys, keys * rows_per_key))
            well_rows = keys * 2 + well_keys * rows_per_key
            wait_for(lambda: value(sql, published) == well_rows, timeout_seconds=40, what="the other partition's rows")
            mock.set_up(1)
            wait_for(
                lambda: value(sql, published) == keys * (rows_per_key + 2), timeout_seconds=60, what="the others' rows"
            )
            assert daemon.stop().code == 0
            assert [str(event["cause"])[:11] for event in daemon.events("breaker_opened")] == ["partition 0"]
            assert value(sql, OUT_OF_ORDER) == 0
        finally:
            daemon.kill()


def test_a_partition_without_a_leader_and_with_a_key_for_each_row_holds_up_its_own_keys_only(
    database: Database, tmp_path: Path
) -> None:
    rows = 30_000
    with database.connect() as sql, MockCluster(2) as mock:
        mock.create_topic("half", partitions=2)
        for partition, leader in enumerate((1, 2)):
            mock.set_leader("half", partition, leader)
        daemon = DaemonProcess(
            tmp_path, {"database": {"url": database.url}, "kafka": {"bootstrap.servers": mock.bootstrap}}
        )
        daemon.start()
        try:
            published = "SELECT count(published_at) FROM outboxd.outbox"
            sql.execute(INSERT, ("half", 100))
            wait_for(lambda: value(sql, published) == 100, timeout_seconds=30, what="the first rows")
            mock.set_down(1)
            # Far more than memory takes: what is stuck fills it, and is told apart by where its keys would go.
            sql.execute(INSERT, ("half", rows))
            well = sum(TWO.partition_of(f"key-{number}") == 1 for number in range(1, rows + 1))
            wait_for(lambda: value(sql, published) == 100 + well, timeout_seconds=60, what="the other partition's rows")
            cause = str(daemon.wait_for_event("breaker_opened")["cause"])
            assert cause.startswith("partition 0 gives no answer; the topic's others go on.")
            sql.execute(INSERT, ("half", 10))
            new = sum(TWO.partition_of(f"key-{number}") == 1 for number in range(1, 11))
            wait_for(lambda: value(sql, published) == 100 + well + new, timeout_seconds=10, what="new rows")
            mock.set_up(1)
            wait_for(lambda: value(sql, published) == rows + 110, timeout_seconds=60, what="the stuck rows")
            assert value(sql, OUT_OF_ORDER) == 0
            daemon.wait_for_event("breaker_closed")
            assert daemon.stop().code == 0
        finally:
            daemon.kill()
