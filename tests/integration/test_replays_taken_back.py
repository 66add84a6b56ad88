"""A replay that an operator takes back before it went: its key is held as before, also where the letter was changed."""

from __future__ import annotations

from tests.support.checker import id_of
from tests.support.children import free_ports, wait_for
from tests.support.rig import Rig
from tests.support.status import held_by

TAKE_BACK = (
    "UPDATE outboxd.dead_letter SET status = 'dead', resolved_at = NULL, resolved_by = NULL WHERE outbox_id = %s"
)
REPLAY = "SELECT outboxd.replay(id, force => true) FROM outboxd.dead_letter WHERE outbox_id = %s"


def test_a_replay_that_is_taken_back_holds_its_key_again_and_one_that_is_changed_goes_by_its_new_key(rig: Rig) -> None:
    topic = rig.topic()
    (port,) = free_ports(1)
    daemon = rig.daemon([{"topic": topic, "on_dead_letter": "hold-key"}], http={"listen": f"127.0.0.1:{port}"})
    daemon.start()
    held = held_by(port)
    dead = rig.insert(topic, "a", headers='"no object"')
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'dead'")
    behind = rig.insert(topic, "a")

    rig.sql.execute("SELECT outboxd.pause(%s)", (topic,))
    rig.sql.execute(REPLAY, (dead,))
    wait_for(lambda: held().get(dead, ("",))[0] == "wanted", timeout_seconds=20, what="the replay is known")
    rig.sql.execute(TAKE_BACK, (dead,))
    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))
    wait_for(lambda: held().get(dead) == ("dead", "a"), timeout_seconds=20, what="the key is held as before")
    free = rig.insert(topic, "free")
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", free)
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [free]

    rig.sql.execute("SELECT outboxd.pause(%s)", (topic,))
    rig.sql.execute(REPLAY, (dead,))
    wait_for(lambda: held().get(dead) == ("wanted", "a"), timeout_seconds=20, what="the second replay is known")
    with rig.sql.transaction():
        rig.sql.execute(TAKE_BACK, (dead,))
        rig.sql.execute("UPDATE outboxd.dead_letter SET key = 'b', headers = '{}' WHERE outbox_id = %s", (dead,))
        rig.sql.execute(REPLAY, (dead,))
    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))
    rig.wait_until("SELECT count(*) = 0 FROM outboxd.outbox WHERE published_at IS NULL")
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE status = 'replayed'")
    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == sorted([free, dead, behind])
    assert "replay" in str(daemon.events("producer_renewed")[0]["reason"])
    assert daemon.stop().code == 0
