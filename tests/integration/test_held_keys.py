"""Keys that dead letters hold, as operators change the letters behind the daemon's back."""

from __future__ import annotations

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
