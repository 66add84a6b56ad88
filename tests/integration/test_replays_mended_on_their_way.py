"""A replay that an operator takes back while the broker is silent: whoever mends it then and replays it again gets what
was mended sent, and one that was only taken back is told as delivered.
"""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.support.children import free_ports, wait_for
from tests.support.rig import Rig

TAKE_BACK = "UPDATE outboxd.dead_letter SET status = 'dead', resolved_at = NULL, resolved_by = NULL"
REPLAY = "SELECT outboxd.replay(id, force => true) FROM outboxd.dead_letter"


def is_sent(port: int, topic: str) -> bool:
    """Whether the daemon whose page is there waits for a report of the topic."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        return bool(json.load(answer)["relay"]["in_flight_by_topic"].get(topic))


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
@pytest.mark.parametrize("mended", [True, False])
def test_a_replay_that_is_taken_back_on_its_way_is_resolved_by_what_was_sent(
    rig: Rig, delivery: str, mended: bool
) -> None:
    topic = rig.topic(partitions=1)
    (port,) = free_ports(1)
    daemon = rig.daemon(http={"listen": f"127.0.0.1:{port}"}, relay={"delivery": delivery})
    daemon.start()
    rig.insert(topic, "k", b"first", headers='"no object"')
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")

    rig.kafka.pause(0)
    try:
        rig.sql.execute(REPLAY)
        wait_for(lambda: is_sent(port, topic), timeout_seconds=20, what="the replay is on its way")
        rig.sql.execute(TAKE_BACK)
        if mended:
            rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
            rig.sql.execute(REPLAY)
    finally:
        rig.kafka.resume(0)

    rig.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter", timeout_seconds=60)
    sent = [record.value for record in rig.kafka.consume(topic)]
    assert sent == ([b"first", b"mended"] if mended else [b"first"])
    assert daemon.stop().code == 0


@pytest.mark.parametrize("mended", [True, False])
def test_after_a_crash_a_replay_that_was_taken_back_is_resolved_by_what_the_daemon_before_sent(
    rig: Rig, mended: bool
) -> None:
    topic = rig.topic(partitions=1)
    daemon = rig.daemon(relay={"delivery": "exactly-once"}, cluster={"lease_ttl": "1s"})
    daemon.start()
    rig.insert(topic, "k", b"first", headers='"no object"')
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")
    rig.sql.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'kept'; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON outboxd.dead_letter FOR EACH ROW WHEN (NEW.status = 'replayed')"
        " EXECUTE FUNCTION keep()"
    )
    rig.sql.execute(REPLAY)
    daemon.wait_for_event("row_not_settled")
    daemon.kill()
    rig.sql.execute("DROP TRIGGER keep ON outboxd.dead_letter")
    rig.sql.execute(TAKE_BACK)
    if mended:
        rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
        rig.sql.execute(REPLAY)

    daemon.start()
    rig.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter", timeout_seconds=60)
    sent = [record.value for record in rig.kafka.consume(topic)]
    assert sent == ([b"first", b"mended"] if mended else [b"first"])
    assert daemon.stop().code == 0


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_what_was_mended_on_its_way_goes_though_what_was_sent_first_is_refused(rig: Rig, delivery: str) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "50000"})
    (port,) = free_ports(1)
    daemon = rig.daemon(http={"listen": f"127.0.0.1:{port}"}, relay={"delivery": delivery})
    daemon.start()
    rig.insert(topic, "k", b"x" * 60_000)
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
    wait_for(lambda: not is_sent(port, topic), timeout_seconds=20, what="the page knows of the death")

    rig.kafka.pause(0)
    try:
        rig.sql.execute(REPLAY)
        wait_for(lambda: is_sent(port, topic), timeout_seconds=20, what="the replay is on its way")
        rig.sql.execute(TAKE_BACK)
        rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
        rig.sql.execute(REPLAY)
    finally:
        rig.kafka.resume(0)

    rig.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter", timeout_seconds=60)
    assert [record.value for record in rig.kafka.consume(topic)] == [b"mended"]
    assert daemon.stop().code == 0
