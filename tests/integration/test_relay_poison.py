"""Rows that never can be delivered, among rows that can: each dead with its cause, all others delivered in order."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from tests.support.checker import id_of
from tests.support.rig import Rig
from tests.support.rows import value

HOURS_AGO = "2020-01-01 00:00:00+00"


def test_every_kind_of_poison_is_dead_lettered_with_its_cause_and_all_others_are_delivered(rig: Rig) -> None:
    small = rig.topic(config={"max.message.bytes": "5000"})
    topic = rig.topic(partitions=3)
    compacted = rig.topic(config={"cleanup.policy": "compact"})
    expected: dict[int, str] = {}

    def poison(code: str, *arguments: object, **options: object) -> None:
        expected[rig.insert(*arguments, **options)] = code  # type: ignore[arg-type]  # of many shapes

    for round_number in range(3):
        rig.insert_many([small, topic], 200, keys=20)
        for number in range(20):
            rig.insert(compacted, f"key-{number}")
        poison("MSG_SIZE_TOO_LARGE", small, "key-1", b"x" * 6_000)
        poison("MSG_SIZE_TOO_LARGE", topic, "key-2", b"x" * 1_100_000)
        poison("INVALID_TOPIC", "illegal name!", "key-1")
        poison("INVALID_TOPIC", "", "key-1")
        poison("INVALID_TOPIC", "x" * 250, "key-1")
        poison("UNKNOWN_PARTITION", topic, "key-3", partition=7 + round_number)
        poison("UNKNOWN_PARTITION", topic, "key-3", partition=-5)
        poison("INVALID_HEADERS", topic, "key-4", headers='"text"')
        poison("INVALID_HEADERS", topic, "key-5", headers='{"number": 1}')
        poison("INVALID_HEADERS", topic, "key-6", headers='[["one"]]')
        poison("RESERVED_HEADER", topic, "key-7", headers='{"outbox-id": "7"}')
        poison("INVALID_TIMESTAMP", topic, "key-8", created_at="-infinity")
        poison("INVALID_TIMESTAMP", topic, "key-9", created_at="1969-12-31 23:59:59+00")
        poison("INVALID_RECORD", compacted, None)
        # Odd, and none the worse for it.
        rig.insert(topic, "key-8", created_at="infinity")
        rig.insert(topic, "key-4", headers='{"ü \\n": "", "x": null}')
        rig.insert(topic, "clé\n", b"\x00\xff")

    ended = rig.daemon(kafka={"linger.ms": "50"}).run("--until-empty", timeout_seconds=90)

    assert ended.code == 0, ended.err
    letters = rig.dead_letters()
    assert {row_id: letter["error_code"] for row_id, letter in letters.items()} == expected
    for letter in letters.values():
        assert letter["reason"] in ("fatal", "invalid")
        assert letter["attempts"] == 1
        assert not letter["holds_key"]
        assert re.match(rf"-?\d+ {letter['error_code']} at .*: .+\..+\.", letter["error_message"]), letter[
            "error_message"
        ]
    rig.check().assert_holds(dead=len(expected))


def test_rows_with_a_topic_longer_than_any_index_takes_all_die_and_keep_no_other_row_from_being_settled(
    rig: Rig,
) -> None:
    topic = rig.topic(partitions=1)
    # Without any regularity, so that PostgreSQL cannot make it smaller.
    endless = "".join(random.Random(4_000).choices(string.ascii_letters + string.digits, k=4_000))
    dead = {rig.insert(endless, f"key-{number}", headers='{"n": 1}' if number % 2 else "{}") for number in range(60)}
    good = [rig.insert(topic, f"key-{number}") for number in range(5)]

    ended = rig.daemon().run("--until-empty", timeout_seconds=30)

    assert ended.code == 0, ended.err
    letters = rig.dead_letters()
    assert set(letters) == dead
    assert {letter["error_code"] for letter in letters.values()} == {"INVALID_TOPIC"}
    assert rig.count("SELECT count(*) FROM outboxd.control") == 0
    assert sorted(map(id_of, rig.kafka.consume(topic))) == good


@pytest.mark.parametrize(
    ("column", "poison", "code"),
    [
        ("headers", "'5'::jsonb", "INVALID_HEADERS"),
        ("partition", "7", "UNKNOWN_PARTITION"),
        ("payload", "convert_to(repeat('x', 1200000), 'UTF8')", "MSG_SIZE_TOO_LARGE"),
    ],
)
def test_rows_of_which_one_in_ten_can_never_be_sent_do_not_have_their_topic_held(
    rig: Rig, column: str, poison: str, code: str
) -> None:
    topic = rig.topic(partitions=1)
    values = {"headers": "'{}'::jsonb", "partition": "NULL::int", "payload": "'x'::bytea"}
    values[column] = f"CASE WHEN i % 10 = 0 THEN {poison} ELSE {values[column]} END"
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, headers, partition, payload)"
        f" SELECT '{topic}', 'key-' || i, {', '.join(values.values())} FROM generate_series(1, 600) AS i"
    )

    ended = rig.daemon().run("--until-empty")

    assert ended.code == 0, ended.err
    assert {letter["error_code"] for letter in rig.dead_letters().values()} == {code}
    assert rig.count("SELECT count(*) FROM outboxd.control") == 0
    rig.check().assert_holds(dead=60)


@dataclass(frozen=True)
class Refusal:
    """One way in which a broker refuses a whole batch for one record of it."""

    code: str
    topic: Mapping[str, str]
    poison: Callable[[Rig, str], int]
    client: Mapping[str, str] = field(default_factory=dict)


REFUSALS = {
    "larger than max.message.bytes": Refusal(
        "MSG_SIZE_TOO_LARGE",
        {"max.message.bytes": "5000"},
        lambda rig, topic: rig.insert(topic, "key-3", b"x" * 5_100),
    ),
    "no key on a compacted topic": Refusal(
        "INVALID_RECORD", {"cleanup.policy": "compact"}, lambda rig, topic: rig.insert(topic, None)
    ),
    "older than the topic takes": Refusal(
        "INVALID_TIMESTAMP",
        {"message.timestamp.before.max.ms": "3600000"},
        lambda rig, topic: rig.insert(topic, "key-3", created_at=HOURS_AGO),
    ),
    "larger than a segment": Refusal(
        "RECORD_LIST_TOO_LARGE",
        {"segment.bytes": "1048576", "max.message.bytes": "3000000"},
        lambda rig, topic: rig.insert(topic, "key-3", b"x" * 1_100_000),
        {"message.max.bytes": "2000000", "batch.size": "2000000"},
    ),
}


@pytest.mark.parametrize("way", REFUSALS)
def test_one_poison_row_in_a_batch_dies_alone_and_its_twenty_batch_mates_are_delivered_in_order(
    rig: Rig, way: str
) -> None:
    refusal = REFUSALS[way]
    topic = rig.topic(partitions=1, config=refusal.topic)
    good = [rig.insert(topic, f"key-{number}", b"g" * 200) for number in range(10)]
    dead = refusal.poison(rig, topic)
    good += [rig.insert(topic, f"key-{number}", b"g" * 200) for number in range(10, 20)]
    # Behind them, rows of the same keys, that of the poison row too: they must not overtake.
    later = [rig.insert(topic, f"key-{number}", b"later") for number in range(20)]
    # A long linger puts all of one fetch into one batch.
    daemon = rig.daemon(kafka={"linger.ms": "300", **refusal.client})

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    letters = rig.dead_letters()
    assert {row_id: letter["error_code"] for row_id, letter in letters.items()} == {dead: refusal.code}
    rig.check().assert_holds(dead=1)
    assert sorted(map(id_of, rig.kafka.consume(topic))) == sorted(good + later)


def test_hold_key_keeps_the_later_rows_of_the_dead_row_back_until_it_is_replayed_or_discarded(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "5000"}, prefix="held")
    mended, discarded = [rig.insert(topic, key, b"x" * 6_000) for key in ("mended", "discarded")]
    later = {key: [rig.insert(topic, key) for _ in range(300)] for key in ("mended", "discarded")}
    free = [rig.insert(topic, "free") for _ in range(5)]
    daemon = rig.daemon([{"topic": "held-*", "on_dead_letter": "hold-key"}])
    daemon.start()
    rig.wait_until("SELECT count(*) = 2 FROM outboxd.dead_letter WHERE holds_key")
    rig.wait_until("SELECT count(*) = 5 FROM outboxd.outbox WHERE key = 'free' AND published_at IS NOT NULL")
    rig.wait_until_settled(but=600)
    assert rig.pending() == 600

    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended' WHERE outbox_id = %s", (mended,))
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter WHERE outbox_id = %s", (mended,))
    rig.wait_until_settled(but=300)
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE key = 'discarded' AND published_at IS NULL") == 300

    rig.sql.execute("SELECT outboxd.discard(id, 'gone') FROM outboxd.dead_letter WHERE outbox_id = %s", (discarded,))
    rig.wait_until_settled()
    assert daemon.stop().code == 0

    assert {row_id: letter["status"] for row_id, letter in rig.dead_letters().items()} == {
        mended: "replayed",
        discarded: "discarded",
    }
    records = rig.kafka.consume(topic)
    assert [id_of(record) for record in records if record.key == b"mended"] == [mended, *later["mended"]]
    assert [id_of(record) for record in records if record.key == b"discarded"] == later["discarded"]
    assert [id_of(record) for record in records if record.key == b"free"] == free
    rig.check(edited=[mended]).assert_holds(dead=1)


def test_a_row_that_always_fails_for_a_passing_reason_keeps_a_topic_that_goes_one_by_one_until_its_attempts_are_up(
    rig: Rig,
) -> None:
    """One record of the topic at a time: another key is tried while the first waits, and shows whose the fault is."""
    topic = rig.topic(partitions=1, prefix="serial")
    first = rig.insert(topic, "a")
    failing = rig.insert(topic, "b", b"FAILS 7")
    behind = rig.insert(topic, "b", b"behind it")
    others = [rig.insert(topic, f"key-{number % 3}") for number in range(30)]
    daemon = rig.daemon(
        [{"topic": "serial-*", "confirm": "each"}], retry={"max_attempts": 3, "backoff_initial": "50ms"}
    )
    daemon.module = "tests.support.faulty_daemon"
    daemon.start()

    rig.wait_until_settled(timeout_seconds=60)

    assert daemon.stop().code == 0
    (letter,) = rig.dead_letters().values()
    assert (letter["outbox_id"], letter["reason"], letter["attempts"]) == (failing, "exhausted", 3)
    assert letter["error_code"] == "REQUEST_TIMED_OUT"
    rig.check().assert_holds(dead=1)
    assert {id_of(record) for record in rig.kafka.consume(topic)} == {first, behind, *others}


def test_a_replay_that_dies_again_keeps_who_asked_for_it_and_holds_its_key_as_the_route_says_now(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "5000"}, prefix="held")
    dead = rig.insert(topic, "k", b"x" * 6_000)
    assert rig.daemon([{"topic": "held-*", "on_dead_letter": "hold-key"}]).run("--until-empty").code == 0
    assert rig.dead_letters()[dead]["holds_key"]
    later = rig.insert(topic, "k")
    rig.sql.execute("SELECT outboxd.replay(id, note => 'is it mended?') FROM outboxd.dead_letter")

    # The route was changed meanwhile.
    assert rig.daemon().run("--until-empty").code == 0

    letter = rig.dead_letters()[dead]
    assert (letter["status"], letter["holds_key"], letter["attempts"]) == ("dead", False, 2)
    assert re.fullmatch(r"is it mended\? \(replayed by \w+, 20\S+Z\)", letter["note"])
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [later]
    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
    rig.sql.execute("SELECT outboxd.replay(id, true, 'now it is') FROM outboxd.dead_letter")
    assert rig.daemon().run("--until-empty").code == 0
    lines = rig.dead_letters()[dead]["note"].splitlines()
    assert [line.split(" (")[0].split(" to ")[0] for line in lines] == ["is it mended?", "now it is", "delivered"]


def test_what_was_delivered_and_cannot_be_marked_yet_is_not_sent_again_whatever_the_database_shows(rig: Rig) -> None:
    """A replay, a retry and a new row: all three are read as still to be sent while their marks wait for a lock."""
    topic = rig.topic(partitions=1, config={"max.message.bytes": "5000"})
    replayed = rig.insert(topic, "replayed", b"x" * 6_000)
    assert rig.daemon().run("--until-empty").code == 0
    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter")
    retried, fresh = rig.insert(topic, "retried"), rig.insert(topic, "fresh")
    rig.sql.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " VALUES ('default', %s, 1, now(), 'REQUEST_TIMED_OUT', 'as it was')",
        (retried,),
    )
    daemon = rig.daemon(cluster={"lease_ttl": "30s"}, relay={"sweep_interval": "100ms"})
    blocker = rig.database.connect(autocommit=False)
    try:
        blocker.execute("SELECT id FROM outboxd.dead_letter FOR UPDATE")
        blocker.execute("SELECT id FROM outboxd.outbox FOR UPDATE")
        daemon.start()
        assert len(rig.kafka.consume(topic, isolation="read_uncommitted", until=3)) == 3
        rig.wait_until(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH ours%%'"
            " AND datname = current_database()"
        )
        seen_at = value(rig.sql, "SELECT clock_timestamp()")
        rig.wait_until(
            "SELECT max(query_start) > %s::timestamptz + interval '1 s' FROM pg_stat_activity"
            " WHERE query LIKE 'SELECT 0::int AS arm%%' AND datname = current_database()",
            seen_at,
        )
    finally:
        blocker.rollback()
        blocker.close()
    rig.wait_until_settled()
    rig.wait_until("SELECT status = 'replayed' FROM outboxd.dead_letter")
    assert daemon.stop().code == 0
    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == [replayed, retried, fresh]


def test_a_held_key_is_held_by_the_next_daemon_too(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "5000"}, prefix="held")
    dead = rig.insert(topic, "k", b"x" * 6_000)
    routes = [{"topic": "held-*", "on_dead_letter": "hold-key"}]
    assert rig.daemon(routes).run("--until-empty").code == 0
    later = [rig.insert(topic, "k") for _ in range(10)]

    ended = rig.daemon(routes).run("--until-empty")

    assert ended.code == 0
    assert "10 rows" in ended.err
    assert rig.pending() == 10
    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended'")
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter")
    assert rig.daemon(routes).run("--until-empty").code == 0
    assert [id_of(record) for record in rig.kafka.consume(topic)] == [dead, *later]


def test_a_retry_that_a_former_daemon_left_holds_its_key_and_goes_when_it_is_due(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    failed, *later = [rig.insert(topic, "k") for _ in range(5)]
    other = rig.insert(topic, "other")
    rig.sql.execute(
        "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
        " VALUES ('default', %s, 3, now() + interval '1 h', 'INVALID_MSG', 'a checksum was wrong')",
        (failed,),
    )
    daemon = rig.daemon()
    daemon.start()
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", other)
    assert rig.pending() == 5

    rig.sql.execute("UPDATE outboxd.retry SET next_attempt_at = now()")
    rig.wait_until_settled()
    assert daemon.stop().code == 0

    assert [id_of(record) for record in rig.kafka.consume(topic)] == [other, failed, *later]
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0
    rig.check().assert_holds()
