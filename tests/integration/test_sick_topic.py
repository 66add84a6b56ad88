"""A leader is away, with more rows than memory takes: the topics, and the partitions, of other brokers go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.mock_broker import MockCluster
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, value

TWO = Placement(DEFAULT_PARTITIONER, 2)


class Bench:
    """A daemon and two brokers, each the leader of something; the first one goes away and comes back."""

    def __init__(self, sql: Connection, mock: MockCluster, daemon: DaemonProcess) -> None:
        self.sql = sql
        self.mock = mock
        self.daemon = daemon

    def insert(self, topic: str, rows: int, *, keys: int | None = None) -> None:
        """Commit rows, each with a key of its own, or round so many."""
        self.sql.execute(
            "INSERT INTO outboxd.outbox (topic, key, payload)"
            " SELECT %s, 'key-' || (1 + (i - 1) %% %s), convert_to(repeat('x', 900), 'UTF8')"
            " FROM generate_series(1, %s) AS i",
            (topic, keys or rows, rows),
        )

    def wait_until_published(self, topic: str, rows: int, what: str, *, seconds: float = 60.0) -> None:
        """Wait until exactly so many are, of all that was committed."""
        wait_for(lambda: self.published(topic) == rows, timeout_seconds=seconds, what=what)

    def published(self, topic: str) -> int:
        count: int = value(self.sql, "SELECT count(published_at) FROM outboxd.outbox WHERE topic = %s", topic)
        return count

    def stop(self) -> None:
        """The daemon ends well, and what it sent of each key is in order."""
        assert self.daemon.stop().code == 0
        out_of_order: Any = value(
            self.sql,
            "SELECT count(*) FROM (SELECT published_offset < lag(published_offset)"
            " OVER (PARTITION BY topic, key ORDER BY id) AS is_wrong FROM outboxd.outbox) AS pairs WHERE is_wrong",
        )
        assert out_of_order == 0


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Iterator[Bench]:
    with database.connect() as sql, MockCluster(2) as mock:
        sections = {"database": {"url": database.url}, "kafka": {"bootstrap.servers": mock.bootstrap}}
        daemon = DaemonProcess(tmp_path, sections)
        daemon.start()
        try:
            yield Bench(sql, mock, daemon)
        finally:
            daemon.kill()


def keys_of_the_second(count: int) -> int:
    """Return how many of so many keys go to the partition of the second broker."""
    return sum(TWO.partition_of(f"key-{number}") == 1 for number in range(1, count + 1))


def halves(bench: Bench, topic: str = "half") -> str:
    """Make a topic of which each broker leads a partition; return its name, once it works."""
    bench.mock.create_topic(topic, partitions=2)
    for partition, leader in enumerate((1, 2)):
        bench.mock.set_leader(topic, partition, leader)
    bench.insert(topic, 100)
    bench.wait_until_published(topic, 100, "the first rows")
    return topic


def test_a_topic_without_a_leader_that_fills_memory_holds_up_no_other_for_long(bench: Bench) -> None:
    for leader, topic in enumerate(("sick", "well"), 1):
        bench.mock.create_topic(topic, partitions=1)
        bench.mock.set_leader(topic, 0, leader)
        bench.insert(topic, 1)
        bench.wait_until_published(topic, 1, f"a row of {topic}")
    bench.mock.set_down(1)
    bench.insert("sick", 20_000)
    bench.insert("well", 3_000)
    bench.wait_until_published("well", 3_001, "the other topic's rows")
    assert bench.daemon.wait_for_event("breaker_opened")["topic"] == "sick"
    assert bench.published("sick") == 1
    bench.mock.set_up(1)
    bench.wait_until_published("sick", 20_001, "the sick topic's rows")
    bench.stop()


@pytest.mark.parametrize("keys", [50, 30_000], ids=["few keys", "a key for each row"])
def test_a_partition_without_a_leader_that_fills_memory_holds_up_its_own_keys_only(bench: Bench, keys: int) -> None:
    topic, rows = halves(bench), 30_000
    well = 100 + rows // keys * keys_of_the_second(keys)
    bench.mock.set_down(1)
    # Far more than memory takes: what is stuck fills it, and is told apart by where its keys go.
    bench.insert(topic, rows, keys=keys)
    bench.wait_until_published(topic, well, "the other partition's rows")
    held = bench.daemon.wait_for_event("partitions_held")
    assert (held["topic"], held["partitions"]) == (topic, "0")
    bench.insert(topic, 10)
    bench.wait_until_published(topic, well + keys_of_the_second(10), "new rows", seconds=10)
    bench.mock.set_up(1)
    bench.wait_until_published(topic, 100 + rows + 10, "the stuck rows")
    bench.daemon.wait_for_event("partitions_released")
    bench.stop()


def test_two_topics_that_lose_a_partition_each_hold_up_no_third_one(bench: Bench) -> None:
    topics = [halves(bench, name) for name in ("one", "two")]
    bench.mock.create_topic("well", partitions=1)
    bench.mock.set_leader("well", 0, 2)
    bench.mock.set_down(1)
    for topic in topics:
        bench.insert(topic, 16_000)
    well = 100 + keys_of_the_second(16_000)
    for topic in topics:
        bench.wait_until_published(topic, well, f"the other partition's rows of {topic}")
    bench.insert("well", 500)
    bench.wait_until_published("well", 500, "the third topic's rows", seconds=10)
    bench.mock.set_up(1)
    for topic in topics:
        bench.wait_until_published(topic, 16_100, f"the stuck rows of {topic}")
    bench.stop()


def test_a_run_until_empty_ends_behind_a_partition_without_a_leader(bench: Bench) -> None:
    topic = halves(bench)
    assert bench.daemon.stop().code == 0
    bench.mock.set_down(1)
    bench.insert(topic, 20_000)
    ended = bench.daemon.run("--until-empty", timeout_seconds=120)
    assert ended.code == 69
    assert topic in ended.err
    assert bench.published(topic) == 100 + keys_of_the_second(20_000)
