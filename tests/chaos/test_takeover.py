"""Takeovers on the clock: however the owner ended, its successor has the lease within the ttl and two seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.lengths import CLUSTER, IS_LONG, TTL_SECONDS
from tests.chaos.load import Load
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.pgbouncer import on_way
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(600)

ROUNDS = 10 if IS_LONG else 2
TAKEOVER_SECONDS_MAX = TTL_SECONDS + 2.0
SETTLING = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'outboxd' AND wait_event_type = 'Lock'"
    " AND query LIKE 'WITH ours%%' AND datname = current_database()"
)


def takeover_seconds(rig: Rig, token: int, since: float) -> float:
    """Wait for the token after this one, and return how long after the database's time `since` it was acquired."""
    rig.wait_until("SELECT token > %s FROM outboxd.lease", token, timeout_seconds=TTL_SECONDS + 20)
    return rig.count("SELECT (extract(epoch FROM acquired_at) * 1000)::bigint FROM outboxd.lease") / 1000 - since


def now(rig: Rig) -> float:
    return rig.count("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint") / 1000


@pytest.fixture(params=["direct", "pooled"])
def any_way(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Rig]:
    """Straight to PostgreSQL, and by PgBouncer."""
    with on_way(rig, request.param) as way:
        yield way


def owner_and_standby(rig: Rig, delivery: str) -> tuple[DaemonProcess, DaemonProcess]:
    owner, standby = (rig.daemon(cluster=CLUSTER, relay={"delivery": delivery}) for _ in range(2))
    owner.start()
    owner.wait_for_event("owner")
    standby.start()
    return owner, standby


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_an_owner_frozen_while_it_settles_never_keeps_its_successor_from_the_lease(any_way: Rig, delivery: str) -> None:
    rig = any_way
    topic = rig.topic(partitions=3)
    owner, standby = daemons = owner_and_standby(rig, delivery)
    took: list[float] = []
    for _ in range(ROUNDS):
        token = rig.count("SELECT token FROM outboxd.lease")
        blocker = rig.database.connect(autocommit=False)
        # Paused, so that the rows are locked before they are published, and their settlement waits.
        rig.sql.execute("SELECT outboxd.pause('*', 'a test')")
        rig.insert_many([topic], 300, keys=300)
        blocker.execute("SELECT id FROM outboxd.outbox WHERE published_at IS NULL FOR UPDATE")
        rig.sql.execute("SELECT outboxd.resume('*')")
        rig.wait_until(SETTLING)
        owner.freeze()
        took.append(takeover_seconds(rig, token, now(rig)))
        blocker.rollback()
        blocker.close()
        rig.wait_until_settled()
        owner.thaw()
        owner.wait_for_event("lease_lost")
        owner, standby = standby, owner
    assert max(took) <= TAKEOVER_SECONDS_MAX, took
    for daemon in daemons:
        assert daemon.stop().code == 0
    verdict = rig.check()
    verdict.assert_holds(duplicates_max=300 * ROUNDS)
    if delivery == "exactly-once":
        assert verdict.duplicates == 0


# A settlement that hangs in the server: no lock limit ends it, as none ends a slow disk.
HANGING = """
CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.key = 'hangs' AND EXISTS (SELECT FROM public.hanging) THEN
        PERFORM pg_sleep(120);
    END IF;
    RETURN NEW;
END $$;
CREATE TABLE public.hanging AS SELECT 1 AS one;
CREATE TRIGGER hang BEFORE UPDATE ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.hang();
"""


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_settlement_that_hangs_in_the_server_never_keeps_a_successor_from_the_lease(
    any_way: Rig, delivery: str
) -> None:
    rig = any_way
    topic = rig.topic()
    owner, standby = owner_and_standby(rig, delivery)
    rig.sql.execute(HANGING)
    token = rig.count("SELECT token FROM outboxd.lease")
    rig.insert(topic, "hangs")
    rig.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'WITH ours%%'"
    )
    owner.freeze()
    took = takeover_seconds(rig, token, now(rig))
    rig.sql.execute("DELETE FROM public.hanging")

    rig.wait_until_settled()
    owner.thaw()
    owner.wait_for_event("lease_lost")
    for daemon in (owner, standby):
        assert daemon.stop().code == 0
    assert took <= TAKEOVER_SECONDS_MAX
    rig.check().assert_holds(duplicates_max=0 if delivery == "exactly-once" else 1)


def test_a_killed_owner_is_followed_within_the_ttl_and_two_seconds(rig: Rig) -> None:
    topic = rig.topic()
    first, second = (rig.daemon(cluster=CLUSTER) for _ in range(2))
    first.start()
    first.wait_for_event("owner")
    second.start()
    pair: tuple[DaemonProcess, DaemonProcess] = (first, second)
    for _ in range(ROUNDS):
        owner, standby = pair
        rig.insert_many([topic], 500, keys=50)
        rig.wait_until_settled()
        token = rig.count("SELECT token FROM outboxd.lease")
        killed_at = now(rig)
        owner.kill()
        assert takeover_seconds(rig, token, killed_at) <= TAKEOVER_SECONDS_MAX
        owner.start()
        pair = (standby, owner)
    rig.wait_until_settled()


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_of_three_daemons_that_nothing_ails_one_relays_at_a_time_and_no_row_goes_twice(rig: Rig, delivery: str) -> None:
    topics = [rig.topic(), rig.topic()]
    owner, *standbys = daemons = [rig.daemon(cluster=CLUSTER, relay={"delivery": delivery}) for _ in range(3)]
    owner.start()
    owner.wait_for_event("owner", timeout_seconds=90)
    for standby in standbys:
        standby.start()
    with Load(rig, topics, writers=1) as load:
        load.wait_for_rows(500)
        # Longer than the lease lasts without a renewal, and the standbys ask all the while.
        rig.wait_until("SELECT clock_timestamp() > acquired_at + interval '5 s' FROM outboxd.lease")
        assert [len(standby.events("owner")) for standby in standbys] == [0, 0]
        left = list(daemons)
        while len(left) > 1:
            token = rig.count("SELECT token FROM outboxd.lease")
            (stopping,) = [daemon for daemon in left if daemon.events("owner")]
            assert stopping.stop().code == 0
            left.remove(stopping)
            rig.wait_until("SELECT token = %s FROM outboxd.lease", token + 1, timeout_seconds=60)
            load.wait_for_rows(300)
            wait_for(lambda: any(daemon.events("owner") for daemon in left), timeout_seconds=60, what="one owns it")
    rig.wait_until_settled()
    assert left[0].stop().code == 0
    assert not any(daemon.events("lease_lost") for daemon in daemons)
    rig.check().assert_holds(duplicates_max=0)
