"""A row that kills whoever sends it: found, isolated and dead-lettered within three starts, all others delivered."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.checker import Verdict
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess, Section
from tests.support.kafka_fixtures import fresh_name
from tests.support.killing_publisher import KILL, KILL_LATER
from tests.support.rig import Rig

SHORT_LEASE = {"lease_ttl": "1s"}


EXACTLY_ONCE = {"relay": {"delivery": "exactly-once"}}


def killable(rig: Rig, **sections: Section) -> DaemonProcess:
    """A daemon that dies of some payloads, at each of its starts."""
    daemon = rig.daemon((), cluster=SHORT_LEASE, **sections)
    daemon.module = "tests.support.killing_daemon"
    return daemon


def trial_of(daemon: DaemonProcess) -> int:
    """The process that the daemon started to try suspects; waits until there is one."""
    found: list[int] = []

    def there() -> bool:
        for children in Path(f"/proc/{daemon.pid}/task").glob("*/children"):
            pids = children.read_text().split()
            found.extend(int(pid) for pid in pids if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())
        return bool(found)

    wait_for(there, timeout_seconds=20, what="a trial")
    return found[-1]


def assert_found_in_three_starts(rig: Rig, payload: bytes, *, seconds_max: float, **sections: Section) -> Verdict:
    """Relay a row with this payload among others: it dies by the third start, with its cause, and the next row of its
    key is published. Return what the check found.
    """
    topic = rig.topic(partitions=2)
    rig.insert_many([topic], 1_500, keys=300)
    killer = rig.insert(topic, "killing key", payload)
    after = rig.insert(topic, "killing key", b"harmless")
    rig.insert_many([topic], 1_500, keys=300)
    daemon = killable(rig, **sections)

    endings = []
    for _ in range(3):
        endings.append(daemon.run("--until-empty", timeout_seconds=seconds_max).code)
        if endings[-1] == 0:
            break

    assert endings == [-signal.SIGKILL, -signal.SIGKILL, 0], daemon.log_text[-3000:]
    (letter,) = rig.dead_letters().values()
    assert letter["outbox_id"] == killer
    assert (letter["error_code"], letter["reason"], letter["attempts"]) == ("CRASHED_DAEMON", "fatal", 1)
    assert "SIGKILL" in letter["error_message"]
    assert daemon.events("crashing_row_found", topic=topic, outbox_id=killer)
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE id = %s AND published_at IS NOT NULL", after) == 1
    return rig.check()


@pytest.mark.parametrize("payload", [KILL, KILL_LATER], ids=["when published", "when reported"])
def test_a_row_that_kills_the_process_is_dead_after_three_starts_and_all_others_are_delivered(
    rig: Rig, payload: bytes
) -> None:
    assert_found_in_three_starts(rig, payload, seconds_max=60).assert_holds(dead=1, duplicates_max=3_000)


def test_a_row_that_kills_the_process_in_exactly_once_is_dead_after_three_starts_and_all_others_arrive_once(
    rig: Rig,
) -> None:
    verdict = assert_found_in_three_starts(rig, KILL, seconds_max=90, **EXACTLY_ONCE)
    verdict.assert_holds(dead=1)
    assert verdict.duplicates == 0


def test_a_row_that_kills_once_it_is_committed_is_delivered_once_in_exactly_once(rig: Rig) -> None:
    """What Kafka committed is found by the next owner, so such a row is never sent again."""
    topic = rig.topic(partitions=2)
    rig.insert_many([topic], 500, keys=100)
    rig.insert(topic, "killing key", KILL_LATER)
    rig.insert_many([topic], 500, keys=100)
    daemon = killable(rig, **EXACTLY_ONCE)

    endings = [daemon.run("--until-empty", timeout_seconds=60).code for _ in range(2)]

    assert endings == [-signal.SIGKILL, 0], daemon.log_text[-3000:]
    verdict = rig.check()
    verdict.assert_holds()
    assert (verdict.delivered, verdict.duplicates) == (1_001, 0)


@pytest.mark.parametrize("payload", [b"harmless", KILL_LATER], ids=["harmless", "kills when it is committed"])
def test_suspects_are_delivered_once_by_the_process_apart_in_exactly_once(rig: Rig, payload: bytes) -> None:
    topic = rig.topic(partitions=2)
    suspects = [rig.insert(topic, f"key-{number % 7}", payload if number == 20 else b"x") for number in range(40)]
    rig.insert_many([topic], 300, keys=7)
    rig.sql.execute(
        "INSERT INTO outboxd.start (outbox, daemon, published_ids) VALUES ('default', 'gone:1', %s)", (suspects,)
    )
    daemon = killable(rig, **EXACTLY_ONCE)

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    recovered = daemon.events("recovered")
    assert recovered[0]["rows"] == 0
    assert sum(event["rows"] for event in recovered) == 40, (
        "the process apart committed them, the recoveries found them"
    )
    assert recovered[-1]["transaction"] - recovered[0]["transaction"] == 1, "they went together"
    verdict = rig.check()
    verdict.assert_holds()
    assert (verdict.delivered, verdict.duplicates) == (340, 0)


def test_after_an_unclean_end_missing_topics_keep_no_other_topics_rows(rig: Rig) -> None:
    """The client takes half a minute to call a topic unknown: until then its rows stay in the air."""
    there = rig.topic()
    rig.insert_many([there, *(fresh_name("missing") for _ in range(3))], 1_200, keys=60)
    rig.sql.execute("INSERT INTO outboxd.start (outbox, daemon) VALUES ('default', 'gone:1')")
    daemon = rig.daemon()
    daemon.start()
    daemon.wait_for_event("careful_start")

    rig.wait_until("SELECT count(*) = 0 FROM outboxd.outbox WHERE published_at IS NULL AND topic = %s", there)

    assert not daemon.events("breaker_opened")
    assert not daemon.events("careful_end")
    daemon.kill()


def test_killed_daemons_leave_only_suspects_and_no_innocent_row_dies(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    daemon = rig.daemon(cluster=SHORT_LEASE)
    for _ in range(3):
        rig.insert_many([topic], 2_000, keys=500)
        daemon.start()
        published = rig.count("SELECT count(published_at) FROM outboxd.outbox")
        rig.wait_until("SELECT count(published_at) > %s FROM outboxd.outbox", published)
        daemon.kill()
    assert rig.count("SELECT count(*) FROM outboxd.start WHERE NOT clean") == 3

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    assert daemon.events("careful_start")
    rig.check().assert_holds(duplicates_max=6_000)
    assert rig.count("SELECT count(*) FROM outboxd.start WHERE clean AND published_ids IS NULL") == 1


def test_a_daemon_is_not_careful_after_a_clean_end(rig: Rig) -> None:
    topic = rig.topic()
    for _ in range(2):
        rig.insert_many([topic], 100, keys=10)
        daemon = rig.daemon()
        assert daemon.run("--until-empty").code == 0
        assert not daemon.events("careful_start")
    rig.check().assert_holds(duplicates_max=2)


def test_a_killed_trial_alone_condemns_nothing(rig: Rig) -> None:
    """The row went by a process of its own, which somebody killed once: it is tried again, and delivered."""
    topic = rig.topic(partitions=1)
    suspect = rig.insert(topic, "k")
    rig.sql.execute(
        "INSERT INTO outboxd.start (outbox, daemon, published_ids) VALUES ('default', 'gone:1', ARRAY[%s::bigint])",
        (suspect,),
    )
    rig.kafka.pause(0)
    daemon = rig.daemon(cluster=SHORT_LEASE)
    try:
        daemon.start()
        first = trial_of(daemon)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: trial_of(daemon) != first, timeout_seconds=20, what="another trial is started")
    finally:
        rig.kafka.resume(0)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=2)
