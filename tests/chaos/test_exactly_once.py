"""Exactly once under fire: two daemons killed at random, brokers and PostgreSQL restarted, and each row is seen once.

The short form is for every change. The long one (OUTBOXD_CHAOS=long) has 300,000 rows and 40 kills.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.chaos.lengths import IS_LONG, SEED
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import started
from tests.support.pgbouncer import on_way
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(1_800 if IS_LONG else 240)

ROWS = 300_000 if IS_LONG else 20_000
KILLS = 40 if IS_LONG else 6
SERVER_RESTARTS = 5 if IS_LONG else 1
ROWS_AT_ONCE = 500
TTL_SECONDS = 2.0


@pytest.fixture
def own_kafka() -> Iterator[KafkaCluster]:
    """A broker that the test restarts as it likes."""
    yield from started(lambda: KafkaCluster(brokers=1))


def daemons_of(rig: Rig, count: int = 2) -> list[DaemonProcess]:
    return [
        rig.daemon(relay={"delivery": "exactly-once", "batch_rows": 1_000}, cluster={"lease_ttl": f"{TTL_SECONDS}s"})
        for _ in range(count)
    ]


class Writer:
    """Writes rows of a hundred keys over three topics, whatever happens to the server."""

    def __init__(self, rig: Rig, topics: list[str]) -> None:
        self._rig, self._topics = rig, topics
        self.rows = 0
        self.thread = threading.Thread(target=self._write, daemon=True)
        self._pause = threading.Event()

    def _write(self) -> None:
        while self.rows < ROWS:
            try:
                with self._rig.database.connect() as connection:
                    while self.rows < ROWS:
                        connection.execute(
                            "INSERT INTO outboxd.outbox (topic, key, payload)"
                            " SELECT (%s::text[])[1 + i %% 3], 'key-' || (i %% 100), convert_to(i::text, 'UTF8')"
                            " FROM generate_series(1, %s) AS i",
                            (self._topics, ROWS_AT_ONCE),
                        )
                        self.rows += ROWS_AT_ONCE
                        # A pace, not a wait: faults shall meet rows on their way.
                        self._pause.wait(0.1 if IS_LONG else 0.2)
            except psycopg.Error:
                self._pause.wait(0.2)


def fight(rig: Rig, daemons: list[DaemonProcess], faults: list[str], server: PostgresServer) -> None:
    """Let the faults happen, each at a random moment; a daemon that was killed is started again."""
    dice = random.Random(SEED)
    dice.shuffle(faults)
    pause = threading.Event()
    for fault in faults:
        pause.wait(dice.uniform(0.3, 2.5))
        daemon = dice.choice(daemons)
        match fault:
            case "kill":
                daemon.kill()
                daemon.start()
            case "freeze":
                daemon.freeze()
                pause.wait(dice.uniform(TTL_SECONDS, 2 * TTL_SECONDS))
                daemon.thaw()
            case "broker":
                rig.kafka.restart(0)
            case "postgres":
                server.restart("immediate")
            case _:
                raise AssertionError(fault)
        for each in daemons:
            if not each.is_running:
                each.start()


@pytest.fixture(params=["direct", "pooled"] if IS_LONG else ["direct"])
def any_way(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Rig]:
    """Straight to PostgreSQL, and by PgBouncer."""
    with on_way(rig, request.param) as way:
        yield way


def test_each_row_is_seen_once_in_key_order_whatever_dies_when(
    any_way: Rig, own_kafka: KafkaCluster, postgres_server: PostgresServer
) -> None:
    rig = any_way
    rig.kafka = own_kafka
    topics = [rig.topic(partitions=3) for _ in range(3)]
    daemons = daemons_of(rig)
    writer = Writer(rig, topics)
    writer.thread.start()
    for daemon in daemons:
        daemon.start()
    restarts = ["broker", "postgres"] * SERVER_RESTARTS
    fight(rig, daemons, ["kill"] * KILLS + restarts + ["freeze"] * max(1, KILLS // 6), postgres_server)
    writer.thread.join(600)
    rig.sql.close()
    rig.sql = rig.database.connect()
    rig.wait_until_settled(timeout_seconds=120)
    for daemon in daemons:
        # The last one to be killed may not be up yet: it then ends without a word.
        assert daemon.stop().code in (0, -signal.SIGTERM)

    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.delivered >= ROWS
    assert verdict.duplicates == 0
    offsets = sum(offset for topic in topics for offset in own_kafka.end_offsets(topic).values())
    assert offsets > verdict.records, "no control records: these were no transactions"


def kill_between_the_commits(rig: Rig, daemon: DaemonProcess, topic: str, records: int) -> None:
    """Let Kafka commit, keep PostgreSQL from it by a lock, and kill the daemon there."""
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("SELECT id FROM outboxd.outbox FOR UPDATE")
    daemon.start()
    rig.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH ours%%'"
        " AND datname = current_database()"
    )
    rig.kafka.consume(topic, until=records)
    daemon.kill()
    rig.sql.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'WITH ours%'"
        " AND datname = current_database()"
    )
    blocker.rollback()
    blocker.close()


@pytest.mark.parametrize(("module", "duplicates"), [("outboxd", 0), ("tests.support.forgetful_daemon", 300)])
def test_without_its_progress_records_the_same_kill_shows_duplicates(
    rig: Rig, database: Database, module: str, duplicates: int
) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 300, keys=10)
    first, second = daemons_of(rig)
    kill_between_the_commits(rig, first, topic, 300)

    second.module = module
    assert second.run("--until-empty", timeout_seconds=60).code == 0

    verdict = rig.check()
    assert verdict.duplicates == duplicates
    assert (verdict.delivered, verdict.lost) == (300, [])
