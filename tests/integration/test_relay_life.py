"""A daemon's life: starts that cannot succeed, the drain, two daemons on one outbox, takeover, and idling."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import psycopg
import pytest

from tests.support.checker import id_of
from tests.support.children import free_ports, wait_for
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.postgres_fixtures import Database
from tests.support.rig import Rig
from tests.support.rows import Letters
from tests.support.statement_counts import StatementCounts

TTL_SECONDS = 2.0


def owner_of(rig: Rig) -> str | None:
    row = rig.sql.execute("SELECT daemon FROM outboxd.lease WHERE expires_at > clock_timestamp()").fetchone()
    return None if row is None else str(row[0])


def in_memory(port: int) -> int:
    """How many records the daemon's metrics say are in memory."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(r"^outboxd_in_memory_records ([0-9.]+)$", answer.read().decode(), re.MULTILINE)
    return -1 if found is None else int(float(found.group(1)))


@contextmanager
def standing_still(rig: Rig) -> Iterator[None]:
    """Within it the server's processes that the daemon is connected to stand still."""
    backends = [
        cast(int, row[0])
        for row in rig.sql.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'outboxd' AND datname = current_database()"
        )
    ]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def start_standby(rig: Rig, standby: DaemonProcess, *arguments: str) -> None:
    """Start a daemon beside the owner, and wait until it asks for the lease."""
    asking = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query ~ 'lease.*expires_at|expires_at.*lease'"
    )
    rig.wait_until(f"SELECT ({asking}) = 1")
    standby.start(*arguments)
    rig.wait_until(f"SELECT ({asking}) = 2")


def is_refused(rig: Rig, role: str) -> bool:
    try:
        rig.database.connect(role).close()
    except psycopg.OperationalError:
        return True
    return False


# --- Starts


def test_a_start_that_cannot_be_noted_is_told_since_nothing_is_published_before_it_is(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert(topic)
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("LOCK TABLE outboxd.start IN ACCESS EXCLUSIVE MODE")
    daemon = rig.daemon(cluster={"lease_ttl": "2s"})
    daemon.start()
    told = daemon.wait_for_event("database_failed", during="the note of the start")
    assert "did not give a lock in time" in str(told["cause"])
    assert rig.pending() == 1

    blocker.rollback()
    blocker.close()
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert len(daemon.events("database_failed", during="the note of the start")) == 1


# --- Bugs


@pytest.mark.parametrize("thread", ["lease", "relay"])
def test_a_bug_that_ends_a_thread_ends_the_daemon_and_the_log_says_where(rig: Rig, thread: str) -> None:
    rig.insert(rig.topic())
    daemon = rig.daemon(cluster={"lease_ttl": "2s"}, relay={"shutdown_timeout": "2s"})
    daemon.module = "tests.support.dying_daemon"
    daemon.start("--dies", thread)
    ended = daemon.wait()

    assert ended.code == 70, ended.err
    died = daemon.wait_for_event("thread_died", thread=thread)
    assert died["cause"] == "LookupError: a planted bug"
    assert "in die" in str(died["traceback"])
    assert "a planted bug" in ended.err


# --- A server that stands still


def test_a_server_that_stands_still_is_told_and_a_stop_ends_the_daemon_all_the_same(rig: Rig) -> None:
    (port,) = free_ports(1)
    rig.insert(rig.topic())
    daemon = rig.daemon(
        cluster={"lease_ttl": "3s"}, relay={"shutdown_timeout": "1s"}, http={"listen": f"127.0.0.1:{port}"}
    )
    daemon.start()
    rig.wait_until_settled()
    wait_for(lambda: is_ready(port), timeout_seconds=20, what="the daemon is ready")
    with standing_still(rig):
        failed = daemon.wait_for_event("database_failed", during="the wait for an answer", timeout_seconds=30)
        assert "neither an answer nor a refusal for 10 s" in str(failed["cause"])
        assert not is_ready(port)
        ended = daemon.stop(60)
    assert ended.code == 0, ended.err


def test_a_second_signal_ends_a_daemon_soon_whose_database_stands_still(rig: Rig) -> None:
    daemon = rig.daemon(cluster={"lease_ttl": "60s"})
    daemon.start()
    rig.insert(rig.topic())
    rig.wait_until_settled()
    with standing_still(rig):
        daemon.wait_for_event("database_failed", during="the wait for an answer", timeout_seconds=30)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("draining")
        daemon.signal(signal.SIGTERM)
        # Each thread that waits for an answer took five seconds more.
        ended = daemon.wait(15)
    assert ended.code == 0, ended.err
    assert daemon.events("ended", reason="forced")
    assert daemon.events("database_failed", cause="no answer within 1 s")


# --- Starts that cannot succeed


def test_a_missing_schema_is_a_matter_of_configuration_and_says_what_to_do(
    empty_database: Database, kafka: KafkaCluster, tmp_path: object
) -> None:
    daemon = DaemonProcess(
        tmp_path,  # type: ignore[arg-type]  # pytest's path
        {"database": {"url": empty_database.url}, "kafka": {"bootstrap.servers": kafka.bootstrap}},
    )
    ended = daemon.run()
    assert ended.code == 78
    assert "outboxd migrate" in ended.err
    assert "Traceback" not in ended.err


def test_a_table_that_is_not_there_is_a_matter_of_configuration_too(rig: Rig) -> None:
    ended = rig.daemon(outbox={"table": "nope"}).run("--until-empty")
    assert ended.code == 78
    assert "there is no table" in ended.err
    assert "nope" in ended.err
    assert "Traceback" not in ended.err
    assert rig.count("SELECT count(*) FROM outboxd.lease") == 0


def test_an_unreachable_postgresql_is_a_server_unavailable(rig: Rig) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/nowhere"
    ended = rig.daemon(database={"url": url}).run()
    assert ended.code == 69
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_role_without_rights_is_refused_for_want_of_permission(rig: Rig) -> None:
    role = f"stranger_{fresh_name('x')[2:]}"
    rig.sql.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        ended = rig.daemon(database={"url": rig.database.url_as(role)}).run()
    finally:
        rig.sql.execute(f'DROP ROLE "{role}"')
    assert ended.code == 77
    assert "Traceback" not in ended.err


def test_a_wrong_password_is_refused_for_want_of_permission_and_never_shown(rig: Rig) -> None:
    role = f"guarded_{fresh_name('x')[2:]}"
    rig.sql.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'right'")
    rig.database.server.require_password(role)
    try:
        wait_for(lambda: is_refused(rig, role), timeout_seconds=5, what="the server asks for the password")
        ended = rig.daemon(database={"url": rig.database.url_as(role), "password": "wrong-secret"}).run()
    finally:
        rig.sql.execute(f'DROP ROLE "{role}"')
    assert ended.code == 77
    assert "password" in ended.err
    assert "wrong-secret" not in ended.err
    assert "Traceback" not in ended.err


# --- Stopping


def test_a_stop_under_load_settles_what_is_in_flight_and_leaves_the_rest_pending(rig: Rig) -> None:
    topic = rig.topic(partitions=6)
    rig.insert_many([topic], 30_000, keys=300)
    daemon = rig.daemon(relay={"batch_rows": 500, "max_in_flight_rows": 1_000})
    daemon.start()
    rig.wait_until("SELECT count(*) > 2000 FROM outboxd.outbox WHERE published_at IS NOT NULL")

    ended = daemon.stop()

    assert ended.code == 0
    assert daemon.events("ended", reason="stopped", unsettled_rows=0), ended.err
    assert owner_of(rig) is None
    assert rig.count("SELECT count(*) FROM outboxd.start WHERE clean") == 1
    assert 0 < rig.pending() < 30_000
    # What was settled is what was sent: the next daemon repeats nothing.
    assert rig.daemon().run("--until-empty", timeout_seconds=60).code == 0
    rig.check().assert_holds()


def test_a_second_signal_ends_a_drain_that_waits_for_a_silent_broker(rig: Rig, kafka: KafkaCluster) -> None:
    topic = rig.topic()
    port = free_ports(1)[0]
    daemon = rig.daemon(relay={"shutdown_timeout": "1h"}, http={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    daemon.wait_for_event("owner")
    rig.insert(topic)
    rig.wait_until_settled()
    kafka.pause(0)
    try:
        rig.insert_many([topic], 100, keys=10)
        wait_for(lambda: in_memory(port) == 100, timeout_seconds=20, what="100 records are in memory")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("draining")
        assert daemon.is_running
        daemon.signal(signal.SIGTERM)
        ended = daemon.wait(10)
    finally:
        kafka.resume(0)
    assert ended.code == 0
    assert [ended["reason"] for ended in daemon.events("ended")] == ["forced"]
    assert not daemon.events("lease_lost")
    assert rig.daemon().run("--until-empty").code == 0
    rig.check().assert_holds(duplicates_max=100)


def test_a_drain_ends_at_its_timeout_when_the_broker_stays_silent(rig: Rig, kafka: KafkaCluster) -> None:
    topic = rig.topic()
    port = free_ports(1)[0]
    daemon = rig.daemon(relay={"shutdown_timeout": "1s"}, http={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    daemon.wait_for_event("owner")
    rig.insert(topic)
    rig.wait_until_settled()
    kafka.pause(0)
    try:
        rig.insert_many([topic], 100, keys=10)
        wait_for(lambda: in_memory(port) == 100, timeout_seconds=20, what="100 records are in memory")
        daemon.signal(signal.SIGINT)
        ended = daemon.wait(10)
    finally:
        kafka.resume(0)
    assert ended.code == 0
    assert daemon.events("ended")
    assert rig.pending() == 100


# --- Two daemons


def test_of_two_daemons_one_relays_and_the_other_takes_over_at_once_when_it_stops(rig: Rig) -> None:
    topic = rig.topic()
    first, second = (rig.daemon(cluster={"lease_ttl": "10s"}) for _ in range(2))
    first.start()
    first.wait_for_event("owner")
    start_standby(rig, second)
    rig.insert_many([topic], 500, keys=20)
    rig.wait_until_settled()
    assert not second.events("owner")

    stopped_at = time.monotonic()
    assert first.stop().code == 0
    ended_at = time.monotonic()
    second.wait_for_event("owner", timeout_seconds=5)
    assert time.monotonic() - ended_at < 1.0, f"the stop itself took {ended_at - stopped_at:.1f} s"

    rig.insert_many([topic], 500, keys=20)
    rig.wait_until_settled()
    assert second.stop().code == 0
    rig.check().assert_holds()


def test_a_killed_owner_is_succeeded_within_its_lease_and_two_seconds(rig: Rig) -> None:
    topic = rig.topic()
    first, second = (rig.daemon(cluster={"lease_ttl": f"{TTL_SECONDS}s"}) for _ in range(2))
    first.start()
    first.wait_for_event("owner")
    start_standby(rig, second)

    first.kill()
    killed_at = time.monotonic()
    rig.insert(topic)
    rig.wait_until_settled(timeout_seconds=TTL_SECONDS + 5)

    assert time.monotonic() - killed_at < TTL_SECONDS + 2
    assert second.stop().code == 0
    rig.check().assert_holds()


def test_until_empty_waits_for_a_dead_owners_lease(rig: Rig) -> None:
    topic = rig.topic()
    first = rig.daemon(cluster={"lease_ttl": f"{TTL_SECONDS}s"})
    first.start()
    first.wait_for_event("owner")
    first.kill()
    rig.insert(topic)

    assert rig.daemon(cluster={"lease_ttl": f"{TTL_SECONDS}s"}).run("--until-empty").code == 0

    assert rig.pending() == 0


def test_until_empty_that_is_stopped_before_is_no_success(rig: Rig) -> None:
    owner = rig.daemon()
    owner.start()
    owner.wait_for_event("owner")
    waiting = rig.daemon()
    start_standby(rig, waiting, "--until-empty")

    ended = waiting.stop()

    assert ended.code == 69
    assert "stopped before the outbox was known to be empty" in ended.err
    assert owner.stop().code == 0


# --- Topics


@pytest.mark.timeout(150)
def test_rows_of_a_missing_topic_wait_for_it_uncounted_and_in_order(rig: Rig) -> None:
    other, missing = rig.topic(), fresh_name("missing")
    daemon = rig.daemon(
        kafka={"topic.metadata.propagation.max.ms": "1000", "topic.metadata.refresh.interval.ms": "1000"}
    )
    daemon.start()
    for number in range(50):
        rig.insert(missing, f"key-{number % 5}")
    rig.insert_many([other], 200, keys=10)
    daemon.wait_for_event("breaker_opened", topic=missing, timeout_seconds=40)
    rig.wait_until_settled(but=50)
    for number in range(50):
        rig.insert(missing, f"key-{number % 5}")

    rig.kafka.create_topic(missing, partitions=3)
    rig.topics.append(missing)

    rig.wait_until_settled(timeout_seconds=15)
    assert daemon.stop().code == 0
    assert rig.dead_letters() == {}
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    rig.check().assert_holds()


def test_a_stop_takes_a_moment_only_while_the_client_does_not_say_yet_that_a_topic_is_missing(rig: Rig) -> None:
    (port,) = free_ports(1)
    daemon = rig.daemon(http={"listen": f"127.0.0.1:{port}"}, relay={"shutdown_timeout": "30s"})
    daemon.start()
    rig.insert(fresh_name("missing"))
    daemon.wait_for_event("owner")
    wait_for(lambda: in_memory(port) == 1, timeout_seconds=10, what="the producer has it")
    began_at = time.monotonic()
    assert daemon.stop().code == 0
    assert daemon.events("breaker_opened") == []
    assert daemon.events("ended", reason="probing", unsettled_rows=1)
    assert time.monotonic() - began_at < 10
    assert rig.pending() == 1


def test_until_empty_ends_with_server_unavailable_behind_an_open_breaker(rig: Rig) -> None:
    missing = fresh_name("missing")
    rig.insert(missing)
    daemon = rig.daemon(kafka={"topic.metadata.propagation.max.ms": "1000"})

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 69
    assert missing in ended.err
    assert rig.pending() == 1


def test_until_empty_lists_what_it_leaves(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert(topic, available_at="2999-01-01")
    sent = rig.insert(topic)

    ended = rig.daemon().run("--until-empty")

    assert ended.code == 0
    assert "not yet available" in ended.err
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [sent]


def test_until_empty_tells_how_many_rows_are_of_topics_that_it_does_not_list(rig: Rig) -> None:
    rig.insert_many([f"paused-{number:02}" for number in range(60)], rows=120, keys=1)
    rig.sql.execute("SELECT outboxd.pause('*')")

    ended = rig.daemon().run("--until-empty")

    told = [line for line in ended.err.splitlines() if line.startswith("still pending: ")]
    assert (ended.code, len(told)) == (0, 51), ended.err
    assert told[0].startswith("still pending: 2 rows of topic 'paused-00', paused")
    assert told[-1] == "still pending: 20 rows of other topics; `outboxd status` counts them all"


def test_until_empty_leaves_retries_and_replays_of_a_paused_topic(rig: Rig) -> None:
    topic = rig.topic()
    letters = Letters(rig.sql)
    retried = rig.insert(topic, "a")
    letters.fail(retried)
    letter = letters.bury(rig.insert(topic, "b"))
    rig.sql.execute("SELECT outboxd.replay(%s, true)", (letter,))
    rig.sql.execute("SELECT outboxd.pause(%s)", (topic,))

    ended = rig.daemon().run("--until-empty")

    assert ended.code == 0, ended.err
    assert f"1 row of topic {topic!r}, to be retried" in ended.err
    assert letters.status_of(letter) == "replaying"


# --- Idling


def test_an_idle_standby_costs_at_most_four_statements_a_second(rig: Rig) -> None:
    counts = StatementCounts(rig.database, rig.sql)
    topic = rig.topic()
    daemons = [rig.daemon(), rig.daemon()]
    daemons[0].start()
    daemons[0].wait_for_event("owner")
    start_standby(rig, daemons[1])
    rig.insert(topic)
    rig.wait_until_settled()

    # A standby asks for the lease now and then; the owner beside it has twelve of its own, see test_database_cost.py.
    assert 0 < counts.of_seconds(5).statements <= 5 * (12 + 4)


@pytest.mark.parametrize(("elsewhere", "code"), [({}, 0), ({"url": "postgresql://u@127.0.0.1:1/d"}, 69)])
def test_no_exit_handler_of_a_library_keeps_a_daemon_from_its_exit_code(
    rig: Rig, elsewhere: dict[str, object], code: int
) -> None:
    daemon = rig.daemon(database=elsewhere)
    daemon.module, daemon.is_forked = "tests.support.aborting_daemon", False
    assert daemon.run("--until-empty").code == code
