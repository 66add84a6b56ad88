"""An outbox of several tables: partitions, or children that inherit, which applications may write directly."""

from __future__ import annotations

import pytest

from tests.support.checker import id_of
from tests.support.rig import Rig

PARTITIONED = """
ALTER TABLE outboxd.outbox RENAME TO former;
CREATE TABLE outboxd.outbox (LIKE outboxd.former INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE SEQUENCE outboxd.ids;
ALTER TABLE outboxd.outbox ALTER id SET DEFAULT nextval('outboxd.ids');
CREATE TABLE outboxd.first_part PARTITION OF outboxd.outbox DEFAULT PARTITION BY RANGE (id);
CREATE TABLE outboxd.part PARTITION OF outboxd.first_part DEFAULT;
CREATE INDEX ON outboxd.outbox (id) WHERE published_at IS NULL;
"""
INHERITED = """
CREATE TABLE outboxd.part (PRIMARY KEY (id)) INHERITS (outboxd.outbox);
CREATE SEQUENCE outboxd.ids;
"""


@pytest.mark.parametrize("tables", [PARTITIONED, INHERITED], ids=["partitioned", "inherited"])
def test_a_row_that_a_part_of_the_table_was_given_directly_goes_soon_after_its_late_commit(
    rig: Rig, tables: str
) -> None:
    rig.sql.execute(tables)
    topic = rig.topic(partitions=1)
    insert = (
        "INSERT INTO outboxd.part (id, topic, key, payload) VALUES (nextval('outboxd.ids'), %s, %s, 'x') RETURNING id"
    )
    daemon = rig.daemon(relay={"sweep_interval": "1h"})
    daemon.start()
    with rig.database.connect(autocommit=False) as slow:
        late = rig.count("SELECT last_value FROM outboxd.ids")
        slow.execute(insert, (topic, "late"))
        # Several looks at the gap pass meanwhile; none may give the id up.
        for _ in range(10):
            row = rig.count(insert, topic, "early")
            rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", row)
        slow.commit()
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", late, timeout_seconds=3)
    assert daemon.stop().code == 0
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [*range(late + 1, late + 11), late]
    assert not daemon.events("late_rows_found")
