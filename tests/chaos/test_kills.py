"""kill -9 at every kind of moment: nothing lost, key order kept among first deliveries, few and bounded duplicates."""

from __future__ import annotations

import random
import threading

import pytest

from tests.chaos.lengths import CLUSTER, IN_FLIGHT_ROWS, KILLS, RELAY, SEED, TTL_SECONDS
from tests.chaos.load import Load
from tests.support.daemon import DaemonProcess
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(600)


def published(rig: Rig) -> int:
    return rig.count("SELECT count(published_at) FROM outboxd.outbox")


def test_a_daemon_killed_at_random_moments_loses_nothing_and_repeats_at_most_what_was_in_flight(rig: Rig) -> None:
    topics = [rig.topic(partitions=4), rig.topic(partitions=4)]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    dice = random.Random(SEED)
    with Load(rig, topics):
        for number in range(KILLS):
            daemon.start()
            if number % 5 == 0:
                # While it starts: some moment within the time that a start takes.
                threading.Event().wait(dice.uniform(0.05, 1.0))
            else:
                before = published(rig)
                rig.wait_until("SELECT count(published_at) > %s FROM outboxd.outbox", before, timeout_seconds=20)
                threading.Event().wait(dice.uniform(0.0, 0.3))
            daemon.kill()
    assert daemon.run("--until-empty", timeout_seconds=90).code == 0
    rig.check().assert_holds(duplicates_max=KILLS * IN_FLIGHT_ROWS)


def test_a_kill_before_the_first_report_repeats_only_what_was_in_flight(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    rig.insert_many([topic], 5_000, keys=5_000)
    # A broker is given time to write and the client none to hear of it: it is killed with all of it unreported.
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER, kafka={"linger.ms": "500"})
    daemon.start()
    daemon.wait_for_event("owner")
    threading.Event().wait(0.55)
    daemon.kill()
    assert rig.daemon(cluster=CLUSTER).run("--until-empty", timeout_seconds=60).code == 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_ROWS)


def test_a_kill_during_settlement_repeats_only_what_was_being_settled(rig: Rig) -> None:
    topic = rig.topic(partitions=3)
    rig.insert_many([topic], 1_000, keys=1_000)
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("SELECT id FROM outboxd.outbox FOR UPDATE")
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    wait_until_settling(rig)
    daemon.kill()
    blocker.rollback()
    blocker.close()

    assert rig.daemon(cluster=CLUSTER).run("--until-empty", timeout_seconds=60).code == 0
    rig.check().assert_holds(duplicates_max=1_000)


def wait_until_settling(rig: Rig) -> None:
    rig.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'outboxd' AND wait_event_type = 'Lock'"
        " AND query LIKE 'WITH ours%%' AND datname = current_database()"
    )


# --- Frozen, and woken when another owns the outbox


def two_daemons(rig: Rig) -> tuple[DaemonProcess, DaemonProcess]:
    """The owner and a standby; a trigger notes which backend marks rows, and under which token of the lease."""
    rig.sql.execute(
        "CREATE TABLE public.marks (pid int, token bigint, rows int, at timestamptz);"
        "CREATE FUNCTION public.note_marks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.marks SELECT pg_backend_pid(), (SELECT token FROM outboxd.lease), count(*),"
        " clock_timestamp() FROM changed; RETURN NULL; END $$;"
        "CREATE TRIGGER note_marks AFTER UPDATE ON outboxd.outbox REFERENCING NEW TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.note_marks()"
    )
    first, second = (rig.daemon(relay=RELAY, cluster=CLUSTER) for _ in range(2))
    first.start()
    first.wait_for_event("owner")
    return first, second


def sessions(rig: Rig) -> list[int]:
    """The backends of the daemons that run now."""
    found = rig.sql.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'outboxd' AND datname = current_database()"
    ).fetchall()
    return [int(str(row[0])) for row in found]


def assert_one_owner_a_token(rig: Rig, of_first: list[int]) -> None:
    """Whoever marked rows under the second token was not the first daemon, in none of its sessions."""
    strangers = rig.count("SELECT count(*) FROM public.marks WHERE token = 2 AND rows > 0 AND pid = ANY(%s)", of_first)
    assert strangers == 0
    assert rig.count("SELECT count(*) FROM public.marks WHERE token = 2 AND rows > 0") > 0


def test_an_owner_frozen_past_its_lease_settles_nothing_once_another_owns_the_outbox(rig: Rig) -> None:
    topic = rig.topic(partitions=4)
    first, second = two_daemons(rig)
    with Load(rig, [topic]) as load:
        load.wait_for_rows(1_000)
        rig.wait_until("SELECT count(published_at) > 500 FROM outboxd.outbox")
        of_first = sessions(rig)
        first.freeze()
        second.start()
        second.wait_for_event("owner", timeout_seconds=TTL_SECONDS + 10)
        load.wait_for_rows(500)
        first.thaw()
        first.wait_for_event("lease_lost")
        load.wait_for_rows(500)
    rig.wait_until_settled()
    assert_one_owner_a_token(rig, of_first)
    assert first.is_running
    for daemon in (first, second):
        assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_ROWS)


def test_an_owner_frozen_while_it_settles_does_not_block_its_successor_and_settles_nothing_later(rig: Rig) -> None:
    topic = rig.topic(partitions=4)
    first, second = two_daemons(rig)
    blocker = rig.database.connect(autocommit=False)
    rig.insert_many([topic], 500, keys=500)
    blocker.execute("SELECT id FROM outboxd.outbox WHERE published_at IS NULL FOR UPDATE")
    rig.insert_many([topic], 500, keys=500)
    # Whatever of the first rows was marked before the lock does not count; the settlement of the rest waits for it.
    wait_until_settling(rig)
    of_first = sessions(rig)
    first.freeze()
    second.start()
    second.wait_for_event("owner", timeout_seconds=2 * TTL_SECONDS + 10)
    blocker.rollback()
    blocker.close()
    rig.wait_until_settled()
    first.thaw()
    first.wait_for_event("lease_lost")
    rig.insert_many([topic], 100, keys=100)
    rig.wait_until_settled()
    assert_one_owner_a_token(rig, of_first)
    for daemon in (first, second):
        assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_ROWS)
