"""A daemon whose end takes a while, for what runs beside its relay, has left the lease to others for good."""

from __future__ import annotations

import signal

from tests.support.rig import Rig
from tests.support.rows import value


def test_a_daemon_that_waits_for_an_alert_at_its_end_does_not_acquire_the_lease_again(rig: Rig) -> None:
    # The pause after a release is a tenth of this; what is queued of alerts is given two seconds at the end.
    daemon = rig.daemon(cluster={"lease_ttl": "2s"}, alerts={"command": "sleep 30"})
    daemon.start()
    daemon.wait_for_event("owner")
    token = value(rig.sql, "SELECT token FROM outboxd.lease")
    daemon.config.write_text(daemon.config.read_text() + "nonsense = 1\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("config_reload_failed")
    assert daemon.stop().code == 0
    assert value(rig.sql, "SELECT token FROM outboxd.lease") == token
    assert not value(rig.sql, "SELECT expires_at > now() OR undrained FROM outboxd.lease")
