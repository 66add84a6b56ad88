"""Rivals that take the lease while it is held: twice the daemon stands by again, the third time it ends and says so."""

from __future__ import annotations

from tests.support.rig import Rig

STOLEN = (
    "UPDATE outboxd.lease SET holder = gen_random_uuid(), token = token + 1, daemon = 'rival:1',"
    " expires_at = clock_timestamp()"
)


def test_three_fencings_in_ten_minutes_end_the_daemon_with_75_and_a_sentence(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 100, keys=5)
    daemon = rig.daemon(cluster={"lease_ttl": "3s"})
    daemon.start()
    for number in range(1, 4):
        daemon.wait_for_event("owner", count=number)
        rig.sql.execute(STOLEN)
        daemon.wait_for_event("lease_lost", count=number)
    ended = daemon.wait()
    assert ended.code == 75
    assert "rivals took the lease 3 times in 10 minutes" in ended.err
    assert "Traceback" not in ended.err


def test_a_lease_that_was_lost_once_is_no_reason_to_end(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(cluster={"lease_ttl": "3s"})
    daemon.start()
    daemon.wait_for_event("owner")
    rig.sql.execute(STOLEN)
    daemon.wait_for_event("owner", count=2)
    rig.insert(topic)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
