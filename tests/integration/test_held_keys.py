"""Keys that dead letters hold, as operators change the letters behind the daemon's back."""

from __future__ import annotations

import json
import urllib.request

from tests.support.checker import id_of
from tests.support.children import free_ports, wait_for
from tests.support.rig import Rig
from tests.support.status import held_by

DISCARD_LONG_AGO = (
    "UPDATE outboxd.dead_letter SET status = 'discarded', resolved_at = now() - interval '1 hour' WHERE outbox_id = %s"
)
UNDO = "UPDATE outboxd.dead_letter SET status = 'dead', resolved_at = NULL WHERE outbox_id = %s"


def test_a_key_is_let_go_by_a_discard_whenever_that_was_begun_and_held_again_once_it_is_undone_or_edited(
    rig: Rig,
) -> None:
    topic = rig.topic()
    (port,) = free_ports(1)
    daemon = rig.daemon(
        [{"topic": topic, "on_dead_letter": "hold-key"}],
        http={"listen": f"127.0.0.1:{port}"},
    )
    daemon.start()
    held = held_by(port)
    dead, kept = (rig.insert(topic, key, headers='"no object"') for key in ("a", "kept"))
    rig.wait_until("SELECT count(*) = 2 FROM outboxd.dead_letter WHERE status = 'dead'")
    behind, behind_kept = rig.insert(topic, "a"), rig.insert(topic, "kept")
    wait_for(lambda: held().get(dead) == ("dead", "a"), timeout_seconds=20, what="the key is held")

    rig.sql.execute(DISCARD_LONG_AGO, (dead,))
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", behind)
    wait_for(lambda: held().keys() == {kept}, timeout_seconds=20, what="the other key is held alone")

    rig.sql.execute(UNDO, (dead,))
    wait_for(lambda: held().get(dead) == ("dead", "a"), timeout_seconds=20, what="the key is held again")
    rig.sql.execute("UPDATE outboxd.dead_letter SET key = 'b' WHERE outbox_id = %s", (dead,))
    wait_for(lambda: held().get(dead) == ("dead", "b"), timeout_seconds=20, what="the other key is held")
    behind_b, free = rig.insert(topic, "b"), rig.insert(topic, "a")
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", free)

    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == [behind, free]
    assert (
        rig.count(
            "SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL AND id IN (%s, %s)", behind_kept, behind_b
        )
        == 2
    )
    assert daemon.stop().code == 0


def test_how_long_a_key_has_been_held_is_told_by_the_next_daemon_too(rig: Rig) -> None:
    topic = rig.topic()
    (port,) = free_ports(1)
    daemon = rig.daemon([{"topic": topic, "on_dead_letter": "hold-key"}], http={"listen": f"127.0.0.1:{port}"})
    dead = rig.insert(topic, "a", headers='"no object"')
    assert daemon.run("--until-empty").code == 0
    rig.sql.execute("UPDATE outboxd.dead_letter SET died_at = now() - interval '3 hours'")
    failed = rig.insert(topic, "b")
    rig.sql.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, first_failed_at, error_code,"
        " error_message) VALUES ('default', %s, 2, now() + interval '4 minutes', now() - interval '1 hour', 'X', 'x')",
        (failed,),
    )
    daemon.start()
    held = held_by(port)
    daemon.wait_for_event("owner")
    wait_for(lambda: held().keys() == {dead, failed}, timeout_seconds=20, what="both keys are held")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        hours = {each["outbox_id"]: each["age_seconds"] / 3600 for each in json.load(answer)["relay"]["held"]}
    assert {outbox_id: round(age, 1) for outbox_id, age in hours.items()} == {dead: 3.0, failed: 1.0}
    assert daemon.stop().code == 0
