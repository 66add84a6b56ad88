"""Exactly once, and a row that PostgreSQL refuses to settle: all else goes on, and that row is sent once, ever."""

from __future__ import annotations

import pytest

from tests.support.checker import id_of
from tests.support.daemon import DaemonProcess
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(180)

TRANSACTIONS = 48
"""More than may be unsettled, with those that may be beyond that."""
LAST_TRANSACTIONS = 8
FREEZING = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.id IN (IDS) THEN RAISE EXCEPTION 'row % is frozen', old.id; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""
REFERRING = """
CREATE TABLE public.kept AS SELECT id FROM outboxd.outbox WHERE id IN (IDS);
ALTER TABLE public.kept ADD FOREIGN KEY (id) REFERENCES outboxd.outbox
"""
OBSTACLES = {
    "mark": (FREEZING, "DROP TRIGGER refuse ON outboxd.outbox"),
    "delete": (REFERRING, "DROP TABLE public.kept"),
}
"""What refuses rows with either `after_publish`, and what takes that away."""


def daemon_of(rig: Rig, after_publish: str) -> DaemonProcess:
    relay = {"delivery": "exactly-once", "after_publish": after_publish}
    return rig.daemon(relay=relay, cluster={"lease_ttl": "2s"})


def one_by_one(rig: Rig, topic: str, refused: int, transactions: int = TRANSACTIONS) -> None:
    """Have each of many rows settled before the next is there, so that each has a transaction of its own."""
    for number in range(transactions):
        rig.insert(topic, f"key-{number % 7}")
        rig.wait_until_settled(but=refused)


@pytest.mark.parametrize("after_publish", OBSTACLES)
def test_a_refused_row_keeps_no_transaction_from_going_and_is_sent_once_whichever_daemon_ends(
    rig: Rig, after_publish: str
) -> None:
    topic = rig.topic(partitions=1)
    obstacle, remedy = OBSTACLES[after_publish]
    rig.insert_many([topic], 300, keys=7)
    first = rig.count("SELECT min(id) FROM outboxd.outbox")
    refused = [first + 4, first + 200]
    rig.sql.execute(obstacle.replace("IDS", ", ".join(map(str, refused))))
    daemon = daemon_of(rig, after_publish)
    daemon.start()
    rig.wait_until_settled(but=2)
    told = daemon.wait_for_event("row_not_settled")
    assert told["row"] in [f"the row {row}" for row in refused]
    one_by_one(rig, topic, 2)

    daemon.kill()
    successor = daemon_of(rig, after_publish)
    successor.start()
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.lease WHERE token = 2")
    one_by_one(rig, topic, 2)
    successor.wait_for_event("row_not_settled")
    assert successor.stop().code == 0
    last = daemon_of(rig, after_publish)
    last.start()
    one_by_one(rig, topic, 2, LAST_TRANSACTIONS)

    rig.sql.execute(remedy)
    rig.wait_until_settled()
    last.wait_for_event("unsettled_rows_settled")
    assert last.stop().code == 0
    for each in (daemon, successor, last):
        assert not each.events("settle_mismatch")
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0
    assert len({id_of(record) for record in rig.kafka.consume(topic)}) == 300 + 2 * TRANSACTIONS + LAST_TRANSACTIONS
