"""A row that PostgreSQL refuses to settle keeps nothing else: not its topic, not the next batches, not the marks."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig

REFUSING = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.id = %s THEN RAISE EXCEPTION 'row % is frozen', old.id; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""
LEAVING_OUT = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN old.id = %s THEN NULL ELSE new END;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON outboxd.outbox FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""


@pytest.mark.parametrize("way", ["locked", "refused by a trigger", "left out by a trigger"])
def test_a_row_that_cannot_be_settled_keeps_no_other_from_it_and_is_settled_once_it_can_be(rig: Rig, way: str) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 500, 50)
    frozen = rig.count("SELECT min(id) + 4 FROM outboxd.outbox")
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("SET application_name = 'somebody'")
    if way == "locked":
        blocker.execute("SELECT id FROM outboxd.outbox WHERE id = %s FOR UPDATE", (frozen,))
    else:
        trigger = REFUSING if way == "refused by a trigger" else LEAVING_OUT
        rig.sql.execute(trigger.replace("%s", str(frozen)))
    daemon = rig.daemon(relay={"max_in_flight_rows": 1000, "batch_rows": 100, "sweep_interval": "200ms"})
    daemon.start()
    rig.wait_until_settled(but=1)
    # More than what may be in memory.
    rig.insert_many([topic], 3000, 50)
    rig.wait_until_settled(but=1)
    told = daemon.wait_for_event("row_not_settled")
    assert told["row"] == f"the row {frozen}"
    if way == "locked":
        assert f"the transaction of process {blocker.info.backend_pid} holds it" in str(told["cause"]).replace(
            "The", "the"
        )
        assert "application_name somebody" in str(told["cause"])
        assert "while updating tuple" in str(told["cause"])
        assert "database.url" not in str(told["cause"])
    elif way == "refused by a trigger":
        assert f"row {frozen} is frozen" in str(told["cause"])
    else:
        assert "a trigger of the table that returns NULL" in str(told["cause"])
    assert not daemon.events("database_failed")
    assert not daemon.events("settle_mismatch")

    blocker.rollback()
    blocker.close()
    if way != "locked":
        rig.sql.execute("DROP TRIGGER refuse ON outboxd.outbox")
    rig.wait_until_settled()
    daemon.wait_for_event("unsettled_rows_settled")
    assert daemon.stop().code == 0
    rig.check().assert_holds()
