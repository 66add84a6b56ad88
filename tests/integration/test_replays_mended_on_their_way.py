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

    def is_sent() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            return bool(json.load(answer)["relay"]["in_flight_by_topic"].get(topic))

    rig.kafka.pause(0)
    try:
        rig.sql.execute(REPLAY)
        wait_for(is_sent, timeout_seconds=20, what="the replay is on its way")
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
