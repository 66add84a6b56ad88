"""A topic that is made anew with fewer partitions under a daemon: rows that name a lost one do not pay for that."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import NewPartitions

from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(240)

SAID_OF_ROWS = (
    "SELECT count(*) FROM outboxd.retry WHERE error_code = '_UNKNOWN_PARTITION'"
    " AND error_message LIKE '%it had 4: it was made anew with fewer.%'"
)


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_rows_that_name_a_lost_partition_wait_for_it_and_one_that_it_never_had_is_fatal(
    rig: Rig, delivery: str
) -> None:
    topic = rig.topic(partitions=4)
    daemon = rig.daemon(retry={"max_attempts": 0, "backoff_max": "2s"}, relay={"delivery": delivery})
    daemon.start()
    for partition in range(4):
        rig.insert(topic, f"before-{partition}", partition=partition)
    rig.wait_until_settled()

    rig.kafka.delete_topic(topic)
    rig.kafka.create_topic(topic, partitions=1)
    lost = [rig.insert(topic, f"lost-{number}", partition=3) for number in range(3)]
    good = [rig.insert(topic, f"good-{number}") for number in range(100)]
    never = rig.insert(topic, "never", partition=4)
    rig.wait_until_settled(but=len(lost), timeout_seconds=90)
    assert {row_id: letter["error_code"] for row_id, letter in rig.dead_letters().items()} == {
        never: "UNKNOWN_PARTITION"
    }
    # They wait by themselves, or with their topic where nothing else of it is on its way: in doubt it is the topic's.
    wait_for(
        lambda: (
            rig.count(SAID_OF_ROWS) == len(lost)
            or any("made anew with fewer" in str(each["cause"]) for each in daemon.events("breaker_opened"))
        ),
        timeout_seconds=30,
        what="the rows wait, and people are told why",
    )

    rig.kafka.admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    rig.wait_until_settled()
    assert {id_of(record) for record in rig.kafka.consume(topic)} == {*lost, *good}
    assert set(rig.dead_letters()) == {never}
    assert daemon.stop().code == 0
