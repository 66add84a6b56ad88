"""Failover to an asynchronous standby that lacks the latest commits: rows, marks, ids and the newest lease are lost.

What Kafka has and the database does not is nobody's fault here, and stays there. Everything that the new primary has
is delivered, in order, and nobody's settlement of what is gone touches what came instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from outboxd.errors import DatabaseUnavailableError
from outboxd.policy.blame.fencings import MOVED
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.migrate import upgrade
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import SCHEMA, Database
from tests.support.rig import Rig
from tests.support.standby import StandbyServer, urls_of

pytestmark = pytest.mark.timeout(240)

NAME = "app"
MODES = pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
SETTLING = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'outboxd' AND wait_event_type = 'Lock'"
    " AND query LIKE 'WITH ours%%' AND datname = current_database()"
)


@dataclass
class Pair:
    """A primary, its standby, and what is around them."""

    primary: PostgresServer
    standby: StandbyServer
    rig: Rig

    def look_at_the_standby(self) -> None:
        """The rig's own eyes: from now on they see the standby."""
        self.rig.sql.close()
        self.rig.database = Database(self.standby, NAME)
        self.rig.sql = self.rig.database.connect()

    def fail_over(self) -> None:
        self.primary.kill()
        self.standby.promote()
        self.look_at_the_standby()


@pytest.fixture
def pair(kafka: KafkaCluster, tmp_path: Path) -> Iterator[Pair]:
    primary = PostgresServer()
    servers: list[PostgresServer] = [primary]
    rigs: list[Rig] = []
    try:
        primary.start()
        with primary.connect() as connection:
            connection.execute(f"CREATE DATABASE {NAME}")
        upgrade(primary.url(NAME), SCHEMA)
        standby = StandbyServer(primary)
        servers.append(standby)
        rigs.append(Rig(Database(primary, NAME), kafka, tmp_path))
        standby.start()
        rigs[0].database_url = urls_of((primary, standby), NAME)
        yield Pair(primary, standby, rigs[0])
    finally:
        for rig in rigs:
            rig.close()
        for server in reversed(servers):
            server.destroy()


def leave_a_settlement_under_way(rig: Rig, topic: str, rows: int) -> psycopg.Connection[tuple[object, ...]]:
    """Rows are published, and a lock keeps the owner from marking them."""
    published = rig.count("SELECT count(published_at) FROM outboxd.outbox")
    blocker = rig.database.connect(autocommit=False)
    rig.sql.execute("SELECT outboxd.pause('*', 'a test')")
    rig.insert_many([topic], rows, keys=20)
    blocker.execute("SELECT id FROM outboxd.outbox WHERE published_at IS NULL FOR UPDATE")
    rig.sql.execute("SELECT outboxd.resume('*')")
    rig.kafka.consume(topic, until=published + rows)
    rig.wait_until(SETTLING)
    return blocker


def events_by_id(rig: Rig, ids_above: int) -> dict[int, str]:
    found = rig.sql.execute("SELECT id, event_id::text FROM public.written WHERE id > %s", (ids_above,))
    return {int(str(row_id)): str(event_id) for row_id, event_id in found}


def assert_survivors_hold(rig: Rig, topic: str, *, ghosts: int, duplicates_max: int = 0) -> None:
    """Everything that the database has is in Kafka, in key order, and no more than `ghosts` that it has not."""
    rows = {
        str(event_id): (int(str(row_id)), key)
        for event_id, row_id, key in rig.sql.execute("SELECT event_id::text, id, key FROM public.written")
    }
    seen: Counter[str] = Counter()
    ids: dict[tuple[int, bytes | None], list[int]] = defaultdict(list)
    for record in rig.kafka.consume(topic):
        event = (record.header("outbox-event-id") or b"").decode()
        seen[event] += 1
        if event in rows and seen[event] == 1:
            ids[record.partition, record.key].append(rows[event][0])
    assert rig.pending() == 0
    assert [row for event, row in rows.items() if event not in seen] == [], "rows were lost"
    assert sum(seen[event] - 1 for event in rows) <= duplicates_max
    assert len(set(seen) - set(rows)) == ghosts
    assert all(found == sorted(found) for found in ids.values())


@MODES
def test_rows_that_were_given_lost_ids_are_sent_though_the_lost_ones_were_being_settled(
    pair: Pair, delivery: str
) -> None:
    rig = pair.rig
    topic = rig.topic()
    daemon = rig.daemon(relay={"delivery": delivery}, cluster={"lease_ttl": "30s"})
    daemon.start()
    rig.insert_many([topic], 300, keys=20)
    rig.wait_until_settled()
    pair.standby.wait_until_caught_up()
    pair.standby.cut_off()
    blocker = leave_a_settlement_under_way(rig, topic, 200)
    lost = events_by_id(rig, 300)
    daemon.freeze()
    blocker.close()

    pair.fail_over()
    rig.insert_many([topic], 200, keys=20)
    instead = events_by_id(rig, 300)
    again = lost.keys() & instead.keys()
    assert len(again) > 100, "the new primary should draw lost ids again"
    daemon.thaw()

    daemon.wait_for_event("lease_lost", reason=MOVED)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_survivors_hold(rig, topic, ghosts=200)


@MODES
def test_two_owners_of_one_token_of_whom_the_new_primary_knows_one_never_both_settle(pair: Pair, delivery: str) -> None:
    rig = pair.rig
    topic = rig.topic()
    former = rig.daemon(relay={"delivery": delivery}, cluster={"lease_ttl": "2s"})
    latter = rig.daemon(relay={"delivery": delivery}, cluster={"lease_ttl": "60s"})
    former.start()
    rig.insert_many([topic], 300, keys=20)
    rig.wait_until_settled()
    pair.standby.wait_until_caught_up()
    pair.standby.cut_off()
    former.freeze()
    latter.start()
    latter.wait_for_event("owner", token=2)
    blocker = leave_a_settlement_under_way(rig, topic, 200)
    latter.freeze()
    blocker.close()

    pair.fail_over()
    rig.insert_many([topic], 200, keys=20)
    assert rig.count("SELECT token FROM outboxd.lease") == 1, "the newest lease should be lost"
    former.thaw()
    former.wait_for_event("owner", token=2)
    rig.wait_until_settled()
    marks = rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall()
    # It trusts its own lease for long yet, and has a settlement to give again under the same token.
    latter.thaw()
    latter.wait_for_event("lease_lost", reason=MOVED)

    assert rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall() == marks
    rig.insert_many([topic], 100, keys=20)
    rig.wait_until_settled()
    for daemon in (former, latter):
        assert daemon.stop().code == 0
    assert_survivors_hold(rig, topic, ghosts=200)


@MODES
def test_marks_that_were_lost_cost_duplicates_in_one_mode_and_none_in_the_other(pair: Pair, delivery: str) -> None:
    rig = pair.rig
    topic = rig.topic()
    daemon = rig.daemon(relay={"delivery": delivery}, cluster={"lease_ttl": "3s"})
    rig.insert_many([topic], 400, keys=20)
    pair.standby.wait_until_caught_up()
    pair.standby.cut_off()
    daemon.start()
    rig.wait_until_settled()

    pair.fail_over()
    assert rig.pending() == 400
    rig.insert_many([topic], 100, keys=20)
    rig.wait_until_settled()

    assert daemon.stop().code == 0
    exact = delivery == "exactly-once"
    assert_survivors_hold(rig, topic, ghosts=0, duplicates_max=0 if exact else 400)


def test_a_server_that_can_only_be_read_is_told_and_waited_for_until_it_is_promoted(pair: Pair) -> None:
    rig = pair.rig
    topic = rig.topic()
    rig.database_url = urls_of((pair.primary, pair.standby), NAME).partition("?")[0]
    daemon = rig.daemon(cluster={"lease_ttl": "2s"})
    daemon.start()
    rig.insert_many([topic], 100, keys=20)
    rig.wait_until_settled()
    pair.standby.wait_until_caught_up()
    pair.primary.kill()
    daemon.wait_for_event("lease_lost")
    said = daemon.wait_for_event("database_failed", during="the question for the lease")
    assert "read-only" in str(said["cause"])
    assert "name the primary" in str(said["cause"])

    pair.standby.promote()
    pair.look_at_the_standby()
    rig.insert_many([topic], 100, keys=20)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_survivors_hold(rig, topic, ghosts=0, duplicates_max=100)


@pytest.mark.parametrize("wanted", ["read-write", "primary"])
def test_a_url_that_asks_for_a_primary_where_only_standbys_answer_is_told_with_what_to_do(
    pair: Pair, wanted: str
) -> None:
    engine = make_engine(f"{pair.standby.url(NAME)}?target_session_attrs={wanted}")
    with pytest.raises(
        DatabaseUnavailableError, match="what answers is a standby, or read-only for this role: name the primary"
    ):
        engine.connect()
    engine.dispose()


@MODES
def test_sessions_that_the_server_ends_are_made_anew_and_the_lease_is_kept(rig: Rig, delivery: str) -> None:
    topic = rig.topic()
    daemon: DaemonProcess = rig.daemon(relay={"delivery": delivery}, cluster={"lease_ttl": "10s"})
    daemon.start()
    daemon.wait_for_event("owner")
    for _ in range(5):
        rig.insert_many([topic], 500, keys=20)
        # Those of the time before may be about to be made anew.
        rig.wait_until(
            "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE application_name = 'outboxd'"
            " AND datname = current_database()"
        )
        rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert any("terminating connection" in str(event["cause"]) for event in daemon.events("database_failed"))
    assert daemon.events("lease_lost") == []
    rig.check().assert_holds(duplicates_max=0)
