"""A clock one hour ahead, before a topic that takes no timestamp from the future: the topic waits, and no row dies."""

from __future__ import annotations

import pytest

from tests.support.checker import id_of
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(120)
HOUR = "3600"
ROWS = 300


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_clock_an_hour_ahead_holds_the_topic_and_all_its_rows_go_in_order_once_it_is_right(
    rig: Rig, delivery: str
) -> None:
    strict = rig.topic(partitions=2, config={"message.timestamp.after.max.ms": "60000"}, prefix="strict")
    # A broker's own default is an hour, which rows just written would be on the edge of.
    lax = rig.topic(partitions=2, config={"message.timestamp.after.max.ms": "86400000"})
    rig.insert_many([strict, lax], 2 * ROWS, keys=40)
    daemon = rig.daemon(cluster={"lease_ttl": "2s"}, relay={"delivery": delivery})
    daemon.module = "tests.support.faulty_daemon"
    daemon.start("--ahead", HOUR)
    held = daemon.wait_for_event("breaker_opened", topic=strict)
    rig.insert_many([strict, lax], 2 * ROWS, keys=40)
    rig.wait_until_settled(but=2 * ROWS)
    rig.wait_until(
        "SELECT count(*) = %s FROM outboxd.outbox WHERE topic = %s AND published_at IS NOT NULL", 2 * ROWS, lax
    )

    assert held["error_code"] == "INVALID_TIMESTAMP"
    assert (
        rig.count("SELECT count(*) FROM outboxd.outbox WHERE topic = %s AND published_at IS NULL", strict) == 2 * ROWS
    )
    assert rig.dead_letters() == {}
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    assert daemon.stop().code == 0

    # The clock is set right.
    rig.insert_many([strict], ROWS, keys=40)
    assert daemon.run("--until-empty", timeout_seconds=60).code == 0
    assert rig.dead_letters() == {}
    assert len({id_of(record) for record in rig.kafka.consume(strict)}) == 3 * ROWS
    verdict = rig.check()
    # Their timestamps are not those of the rows, which the check compares: that is the clock's fault.
    assert (verdict.lost, verdict.inverted, verdict.pending, verdict.dead) == ([], [], 0, 0)
