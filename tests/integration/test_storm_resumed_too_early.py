"""A topic that stormed and was resumed before it was mended: next to none of its rows die, whoever relays by then."""

from __future__ import annotations

import pytest

from tests.support.children import wait_for
from tests.support.rig import Rig

KEYS = 60
LIMIT_BYTES = 2_000
DEAD_MORE_MAX = 3
"""A row that tries the topic in vain a few times dies: no other could ever show that the fault is its own."""


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_topic_that_was_resumed_while_nobody_relayed_is_tried_by_one_row_at_a_time_by_the_next_daemon(
    rig: Rig, delivery: str
) -> None:
    topic = rig.topic(1, {"max.message.bytes": str(LIMIT_BYTES)})
    for number in range(KEYS):
        rig.insert(topic, f"key-{number}", b"x" * 2 * LIMIT_BYTES)
    former = rig.daemon(relay={"delivery": delivery})
    former.start()
    former.wait_for_event("storm_guard", topic=topic)
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.control")
    assert former.stop().code == 0
    dead = len(rig.dead_letters())

    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))
    daemon = rig.daemon(relay={"delivery": delivery})
    daemon.start()
    opened = daemon.wait_for_event("breaker_opened", topic=topic)
    assert "it stormed" in opened["cause"]
    wait_for(
        lambda: len(rig.dead_letters()) > dead or bool(daemon.events("storm_guard")),
        timeout_seconds=60,
        what="a row is tried",
    )
    assert daemon.events("storm_guard") == []
    rig.kafka.alter_topic_config(topic, {"max.message.bytes": "1000000"})
    rig.wait_until_settled()
    assert len(rig.dead_letters()) - dead <= DEAD_MORE_MAX
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    daemon.wait_for_event("breaker_closed", topic=topic)
    assert daemon.stop().code == 0
    rig.check().assert_holds(dead=len(rig.dead_letters()))
