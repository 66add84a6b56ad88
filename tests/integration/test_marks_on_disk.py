"""Exactly once on a database that commits without waiting for the disk: what was settled outlives a crash."""

from __future__ import annotations

from tests.support.rig import Rig


def test_a_settled_transaction_outlives_a_crash_though_the_database_does_not_wait_for_the_disk(forgetful: Rig) -> None:
    rig = forgetful
    topic = rig.topic()
    rig.insert_many([topic], 100, keys=5)
    rig.sql.execute("ALTER DATABASE app SET synchronous_commit = off")
    daemon = rig.daemon(relay={"delivery": "exactly-once"}, cluster={"lease_ttl": "60s"})
    daemon.start()
    rig.wait_until("SELECT coalesce(sum(settled_transaction), 0) > 0 FROM outboxd.progress")
    rig.wait_until_settled()
    daemon.freeze()
    rig.sql.close()
    rig.database.server.kill()
    rig.database.server.start()
    rig.sql = rig.database.connect()
    assert rig.pending() == 0
    daemon.thaw()
    assert daemon.stop().code == 0
    rig.check().assert_holds()
