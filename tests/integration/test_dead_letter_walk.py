"""The walk-through of docs/dead-letters.md: it breaks, is seen, understood, mended, replayed, gone."""

from __future__ import annotations

import re

from tests.support.documents import ROOT
from tests.support.rig import Rig

GUIDE = ROOT / "docs" / "dead-letters.md"


def test_a_dead_letter_goes_from_breaking_to_gone_as_the_guide_shows(rig: Rig) -> None:
    steps = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    topic = rig.topic(partitions=1, config={"max.message.bytes": "2000"}, prefix="orders")
    breaks, seen, understood, mended, replayed, gone = (step.replace("'orders'", f"'{topic}'") for step in steps)
    daemon = rig.daemon()
    daemon.start()
    with rig.database.connect() as connection:
        for statement in filter(str.strip, breaks.split(";")):
            connection.execute(statement.encode())
        rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
        ((of, code, reason, count, *_),) = connection.execute(seen.encode()).fetchall()
        assert (of, code, reason, count) == (topic, "MSG_SIZE_TOO_LARGE", "fatal", 1)
        ((_, outbox_id, key, _, message),) = connection.execute(understood.encode()).fetchall()
        assert key == "42"
        assert str(message).startswith("10 MSG_SIZE_TOO_LARGE at ")
        assert "max.message.bytes" in str(message)
        assert connection.execute(mended.encode()).rowcount == 1
        assert connection.execute(replayed.encode()).fetchall() == [(1,)]
        rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'replayed'")
        left, history = (step for step in gone.split(";") if step.strip())
        assert connection.execute(left.encode()).fetchall() == [(0,)]
        ((status, resolved_at, resolved_by, note),) = connection.execute(history.encode()).fetchall()
        assert status == "replayed"
        assert resolved_at is not None
        assert resolved_by is not None
        assert "payload replaced by its address" in str(note)
    daemon.stop()
    records = rig.kafka.consume(topic, until=2)
    assert {record.header("outbox-id"): record.value for record in records}[
        str(outbox_id).encode()
    ] == b"see /orders/42"
