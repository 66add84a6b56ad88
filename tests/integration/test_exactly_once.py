"""Exactly once: rows through Kafka transactions, each visible once, and what nobody settled is recovered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from outboxd.kafka.checks.transaction_checks import inspect_transactions
from outboxd.policy.exchange.findings import Weight
from outboxd.postgres.store.load_sql import progress_text
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess, Section
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(180)

RELAY = {"delivery": "exactly-once"}
CLUSTER = {"lease_ttl": "2s"}
HOURS_AGO = "2020-01-01 00:00:00+00"


def daemon_of(rig: Rig, *routes: Section, **sections: Section) -> DaemonProcess:
    return rig.daemon(routes, **{"relay": RELAY, "cluster": CLUSTER, **sections})


def ids_by_key(rig: Rig, topic: str) -> dict[str, list[int]]:
    """What a read-committed consumer sees, by key, in its order."""
    seen: dict[str, list[int]] = {}
    for record in rig.kafka.consume(topic):
        seen.setdefault((record.key or b"").decode(), []).append(id_of(record))
    return seen


@pytest.mark.parametrize("after_publish", ["mark", "delete"])
def test_many_rows_arrive_once_in_order_and_the_topics_hold_control_records(rig: Rig, after_publish: str) -> None:
    topics = [rig.topic(partitions=3) for _ in range(3)]
    rig.insert_many(topics, 20_000, keys=500)
    daemon = daemon_of(rig, relay={**RELAY, "after_publish": after_publish})

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.delivered == 20_000
    assert verdict.duplicates == 0
    offsets = sum(offset for topic in topics for offset in rig.kafka.end_offsets(topic).values())
    assert offsets > verdict.records, "no control records: these were no transactions"


@dataclass(frozen=True)
class Poison:
    """A row that the broker refuses, or outboxd."""

    code: str
    insert: Callable[[Rig, str], int]
    topic: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, str] = field(default_factory=dict)


POISON = {
    "larger than max.message.bytes": Poison(
        "MSG_SIZE_TOO_LARGE",
        lambda rig, topic: rig.insert(topic, "key-3", b"x" * 51_000),
        {"max.message.bytes": "50000"},
    ),
    "no key on a compacted topic": Poison(
        "INVALID_RECORD", lambda rig, topic: rig.insert(topic, None), {"cleanup.policy": "compact"}
    ),
    "older than the topic takes": Poison(
        "INVALID_TIMESTAMP",
        lambda rig, topic: rig.insert(topic, "key-3", created_at=HOURS_AGO),
        {"message.timestamp.before.max.ms": "3600000"},
    ),
    "a partition that is not there": Poison(
        "UNKNOWN_PARTITION", lambda rig, topic: rig.insert(topic, "key-3", partition=77)
    ),
    "no headers but a number": Poison("INVALID_HEADERS", lambda rig, topic: rig.insert(topic, "key-3", headers="1")),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poison_row_dies_alone_and_its_neighbours_are_delivered_once(rig: Rig, kind: str) -> None:
    poison = POISON[kind]
    topic, other = rig.topic(partitions=1, config=poison.topic), rig.topic()
    good = [rig.insert(topic, f"key-{number % 10}") for number in range(300)]
    dead = poison.insert(rig, topic)
    good += [rig.insert(topic, f"key-{number % 10}") for number in range(300)]
    elsewhere = [rig.insert(other, "key") for _ in range(50)]
    daemon = daemon_of(rig, kafka=poison.client)

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    letters = rig.dead_letters()
    assert {row_id: letter["error_code"] for row_id, letter in letters.items()} == {dead: poison.code}
    verdict = rig.check()
    verdict.assert_holds(dead=1)
    assert verdict.duplicates == 0
    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == good
    assert [id_of(record) for record in rig.kafka.consume(other)] == elsewhere
    assert daemon.events("producer_rebuilt") == []


def test_hold_key_keeps_later_rows_of_the_key_back_until_a_replay_delivers_the_dead_one(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "50000"}, prefix="held")
    refused = rig.insert(topic, "refused", b"x" * 60_000)
    invalid = rig.insert(topic, "invalid", headers="1")
    later = {key: [rig.insert(topic, key) for _ in range(100)] for key in ("refused", "invalid", "free")}
    daemon = daemon_of(rig, {"topic": "held-*", "on_dead_letter": "hold-key"})
    daemon.start()
    rig.wait_until("SELECT count(*) = 2 FROM outboxd.dead_letter WHERE holds_key")
    rig.wait_until_settled(but=200)
    assert rig.pending() == 200
    assert ids_by_key(rig, topic) == {"free": later["free"]}

    rig.sql.execute("UPDATE outboxd.dead_letter SET payload = 'mended' WHERE outbox_id = %s", (refused,))
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter WHERE outbox_id = %s", (refused,))
    rig.wait_until_settled(but=100)
    rig.sql.execute("SELECT outboxd.discard(id, 'gone') FROM outboxd.dead_letter WHERE outbox_id = %s", (invalid,))
    rig.wait_until_settled()
    assert daemon.stop().code == 0

    expected = {"refused": [refused, *later["refused"]], "invalid": later["invalid"], "free": later["free"]}
    assert ids_by_key(rig, topic) == expected
    assert {letter["status"] for letter in rig.dead_letters().values()} == {"replayed", "discarded"}


@pytest.mark.parametrize("refused_by", ["the broker", "the client", "outboxd"])
def test_of_many_bad_rows_of_one_key_only_the_first_dies_and_holds_it_as_in_other_deliveries(
    rig: Rig, refused_by: str
) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "50000"}, prefix="held")
    size_bytes = {"the broker": 60_000, "the client": 1_100_000, "outboxd": 10}[refused_by]
    headers = "1" if refused_by == "outboxd" else "{}"
    bad = {key: [rig.insert(topic, key, b"x" * size_bytes, headers=headers) for _ in range(3)] for key in ("a", "b")}
    good = rig.insert(topic, "good")

    ended = daemon_of(rig, {"topic": "held-*", "on_dead_letter": "hold-key"}).run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    assert sorted(rig.dead_letters()) == sorted(rows[0] for rows in bad.values())
    assert rig.pending() == 4
    assert ids_by_key(rig, topic) == {"good": [good]}


@pytest.mark.parametrize("later", ["the client", "outboxd"])
def test_of_a_row_that_only_the_broker_refuses_and_a_later_one_of_its_key_that_another_does_only_the_first_dies(
    rig: Rig, later: str
) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "50000"}, prefix="held")
    first = rig.insert(topic, "a", b"x" * 60_000)
    rig.insert(
        topic, "a", b"x" * (1_100_000 if later == "the client" else 10), headers="1" if later == "outboxd" else "{}"
    )
    rig.insert(topic, "a")
    good = [rig.insert(topic, "good") for _ in range(5)]

    ended = daemon_of(rig, {"topic": "held-*", "on_dead_letter": "hold-key"}).run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    assert list(rig.dead_letters()) == [first]
    assert rig.pending() == 2
    assert ids_by_key(rig, topic) == {"good": good}


def test_a_batch_of_which_many_rows_are_refused_is_not_taken_for_stuck_while_its_transactions_end(rig: Rig) -> None:
    topic = rig.topic(partitions=3, config={"max.message.bytes": "50000"})
    rows = [rig.insert(topic, f"key-{n}", b"x" * (60_000 if n % 10 == 5 else 10)) for n in range(300)]
    bad, good = rows[5::10], [row_id for place, row_id in enumerate(rows) if place % 10 != 5]
    daemon = daemon_of(rig)
    daemon.module = "tests.support.impatient_daemon"

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert ended.code == 0, ended.err
    assert daemon.events("in_flight_stalled") == daemon.events("breaker_opened") == []
    assert sorted(rig.dead_letters()) == bad
    # What was committed, and who is to blame, was settled before the batch came to its end.
    first_death, last_death = (f"SELECT {which}(died_at) FROM outboxd.dead_letter" for which in ("min", "max"))
    assert rig.count(f"SELECT count(*) FROM outboxd.outbox WHERE published_at > ({first_death})") > 0
    assert rig.count(f"SELECT count(*) FROM outboxd.outbox WHERE published_at < ({last_death})") > 0
    verdict = rig.check()
    verdict.assert_holds(dead=len(bad))
    assert verdict.duplicates == 0
    assert sorted(id_of(record) for record in rig.kafka.consume(topic)) == good


def test_a_topic_that_is_not_there_waits_while_others_go_and_comes_in_order_once_it_is(rig: Rig) -> None:
    there, missing = rig.topic(), "missing-" + rig.topic()
    rig.insert_many([missing, there], 200, keys=5)
    daemon = daemon_of(rig)
    daemon.start()
    rig.wait_until("SELECT count(*) = 100 FROM outboxd.outbox WHERE topic = %s AND published_at IS NOT NULL", there)
    daemon.wait_for_event("breaker_opened", topic=missing)
    rig.insert_many([there], 200, keys=5)
    rig.wait_until_settled(but=100)
    assert rig.dead_letters() == {}

    rig.kafka.create_topic(missing)
    rig.topics.append(missing)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


# --- What was committed and not settled


def kill_between_the_two_commits(rig: Rig, daemon: DaemonProcess, lock: str, topic: str, records: int) -> None:
    """Let Kafka commit, keep PostgreSQL from it by a lock, and kill the daemon there."""
    blocker = rig.database.connect(autocommit=False)
    try:
        blocker.execute(lock)
        daemon.start()
        rig.wait_until(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH ours%%'"
            " AND datname = current_database()"
        )
        assert len(rig.kafka.consume(topic)) == records
        daemon.kill()
        # Else the server would end the statement of the dead once the lock is gone.
        rig.sql.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'WITH ours%'"
            " AND datname = current_database()"
        )
    finally:
        blocker.rollback()
        blocker.close()


def test_what_kafka_committed_and_nobody_settled_is_settled_by_the_next_owner_and_not_sent_again(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 500, keys=20)
    daemon = daemon_of(rig)
    kill_between_the_two_commits(rig, daemon, "SELECT id FROM outboxd.outbox FOR UPDATE", topic, 500)
    assert rig.pending() == 500
    rig.insert_many([topic], 100, keys=20)

    successor = daemon_of(rig)
    assert successor.run("--until-empty", timeout_seconds=30).code == 0

    assert successor.events("recovered")[-1]["rows"] == 500
    verdict = rig.check()
    verdict.assert_holds()
    assert (verdict.delivered, verdict.duplicates) == (600, 0)


@pytest.mark.parametrize("after_publish", ["mark", "delete"])
def test_a_row_that_was_given_the_id_of_one_in_kafka_is_sent_and_not_taken_for_it(rig: Rig, after_publish: str) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 300, keys=20)
    relay = {**RELAY, "after_publish": after_publish}
    daemon = daemon_of(rig, relay=relay)
    kill_between_the_two_commits(rig, daemon, "SELECT id FROM outboxd.outbox FOR UPDATE", topic, 300)
    # A database that lost its latest commits knows the first hundred rows only, and draws the other ids again.
    rig.sql.execute("DELETE FROM outboxd.outbox WHERE id > 100")
    rig.sql.execute("DELETE FROM public.written WHERE id > 100")
    rig.sql.execute("ALTER TABLE outboxd.outbox ALTER id RESTART WITH 101")
    rig.insert_many([topic], 150, keys=20)
    assert rig.count("SELECT max(id) FROM outboxd.outbox") == 250
    events = {str(event_id) for (event_id,) in rig.sql.execute("SELECT event_id FROM outboxd.outbox WHERE id > 100")}

    successor = daemon_of(rig, relay=relay)
    assert successor.run("--until-empty", timeout_seconds=30).code == 0

    assert successor.events("settle_mismatch", expected=300, matched=150)
    assert rig.pending() == 0
    seen = [(record.header("outbox-event-id") or b"").decode() for record in rig.kafka.consume(topic)]
    assert len(seen) == 300 + 150
    assert events <= set(seen), "rows that were never sent were taken for others"


def test_a_replay_that_kafka_committed_and_nobody_settled_is_not_sent_again(rig: Rig) -> None:
    topic = rig.topic(partitions=1, prefix="held")
    route = {"topic": "held-*", "on_dead_letter": "hold-key"}
    dead = rig.insert(topic, "k", headers="1")
    assert daemon_of(rig, route).run("--until-empty").code == 0
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter")
    kill_between_the_two_commits(rig, daemon_of(rig, route), "SELECT id FROM outboxd.dead_letter FOR UPDATE", topic, 1)
    later = rig.insert(topic, "k")

    assert daemon_of(rig, route).run("--until-empty", timeout_seconds=30).code == 0

    assert ids_by_key(rig, topic) == {"k": [dead, later]}
    assert rig.dead_letters()[dead]["status"] == "replayed"


def holds_marker(rig: Rig, topic: str) -> bool:
    """Whether the topic's one partition holds more than its records."""
    end = rig.kafka.end_offsets(topic)[0]
    return end > len(rig.kafka.consume(topic, isolation="read_uncommitted"))


def test_a_transaction_that_was_open_for_too_long_by_our_own_doing_is_resolved_and_no_rival_is_seen(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    daemon = daemon_of(
        rig, cluster={"lease_ttl": "60s"}, kafka={"transaction.timeout.ms": "10000", "linger.ms": "8000"}
    )
    # Full batches go at once and the last one lingers, which keeps the transaction open.
    daemon.module = "tests.support.lingering_daemon"
    daemon.start()
    daemon.wait_for_event("recovered")
    rig.insert_many([topic], 25, keys=20, payload_bytes=100_000)
    rig.kafka.consume(topic, isolation="read_uncommitted", until=5)
    daemon.freeze()
    # The brokers end it: a marker, which no reader sees, stands behind its records.
    wait_for(lambda: holds_marker(rig, topic), timeout_seconds=40, what="the broker aborts")
    assert rig.kafka.consume(topic) == []
    daemon.thaw()

    rig.wait_until_settled()
    assert daemon.events("producer_rebuilt")[0]["error_code"] == "TRANSACTION_TIMED_OUT"
    assert daemon.events("lease_lost") == []
    assert daemon.stop().code == 0
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


# --- Ends and takeovers


def test_a_stop_in_load_settles_what_was_committed_and_hands_over_long_before_the_lease_ends(rig: Rig) -> None:
    topic = rig.topic()
    cluster = {"lease_ttl": "12s"}
    first, second = daemon_of(rig, relay={**RELAY, "batch_rows": 500}, cluster=cluster), daemon_of(rig, cluster=cluster)
    first.start()
    first.wait_for_event("recovered")
    second.start()
    # The standby asks for the lease, and the owner has renewed it.
    rig.wait_until(
        "SELECT count(*) FILTER (WHERE query LIKE 'SELECT %%LEFT JOIN %%lease AS l%%') > 0"
        " AND count(*) FILTER (WHERE query LIKE 'UPDATE %%lease AS l SET expires_at%%') > 0 FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    rig.insert_many([topic], 30_000, keys=300)
    rig.wait_until("SELECT count(published_at) > 1000 FROM outboxd.outbox")
    assert first.stop().code == 0
    stopped_at = time_of(first.events("ended")[0])
    recovered = second.wait_for_event("recovered")

    assert recovered["rows"] == 0, "a stop settles all that it committed"
    acquired_at = rig.count("SELECT (extract(epoch FROM acquired_at) * 1000)::bigint FROM outboxd.lease") / 1000
    # The standby asks twice a second, which is half a second at most on a machine that does nothing else.
    assert acquired_at - stopped_at < 6
    rig.wait_until_settled()
    assert second.stop().code == 0
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


# --- From at-least-once to exactly-once


def test_rows_that_an_at_least_once_owner_left_in_doubt_are_not_begun_on_before_they_are_drained(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 2_000, keys=20)
    killed = rig.daemon(cluster=CLUSTER)
    killed.start()
    killed.wait_for_event("owner")
    killed.kill()
    rig.wait_until("SELECT expires_at <= now() FROM outboxd.lease")

    refused = daemon_of(rig).run(timeout_seconds=20)

    assert refused.code == 78
    assert "--until-empty" in refused.err
    assert rig.daemon(cluster=CLUSTER).run("--until-empty", timeout_seconds=30).code == 0
    later = rig.insert(topic, "k")
    assert daemon_of(rig).run("--until-empty", timeout_seconds=30).code == 0
    rig.check().assert_holds(duplicates_max=2_000)
    assert [id_of(record) for record in rig.kafka.consume(topic)].count(later) == 1


def test_exactly_once_follows_an_at_least_once_owner_that_ended_cleanly(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 200, keys=20)
    former, successor = rig.daemon(cluster=CLUSTER), daemon_of(rig)
    former.start()
    rig.wait_until_settled()
    successor.start()
    assert former.stop().code == 0
    successor.wait_for_event("recovered")
    rig.insert_many([topic], 200, keys=20)
    rig.wait_until_settled()
    assert successor.stop().code == 0
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0


def time_of(event: Mapping[str, object]) -> float:
    return datetime.fromisoformat(re.sub("Z$", "+00:00", str(event["timestamp"]))).timestamp()


# --- What `outboxd check` says


def test_check_makes_sure_that_transactions_can_be_begun_and_that_their_progress_is_kept(kafka: KafkaCluster) -> None:
    topic = fresh_name("outboxd-progress")

    def found(**properties: str) -> list[tuple[Weight, str]]:
        brokers = {"bootstrap.servers": kafka.bootstrap, **properties}
        return [(each.weight, each.message) for each in inspect_transactions(brokers, "outboxd-checked", topic)]

    fine, warning = found()
    assert fine == (Weight.FINE, "transactions as outboxd-checked")
    assert warning[0] is Weight.WARNING
    assert "the daemon makes it" in warning[1]

    too_long = found(**{"transaction.timeout.ms": "7200000"})
    assert too_long[0] == (Weight.MISCONFIGURED, "the brokers' transaction.max.timeout.ms is below 7200000")

    kafka.create_topic(topic, partitions=2, config={"cleanup.policy": "delete"})
    said = found()
    assert [weight for weight, _ in said] == [Weight.FINE, Weight.MISCONFIGURED, Weight.MISCONFIGURED, Weight.WARNING]
    assert "2 partitions" in said[1][1]
    assert "forgets its records (retention.ms=604800000)" in said[2][1]
    assert "one replica" in said[3][1]


def test_check_warns_where_a_daemon_on_another_database_of_the_same_name_wrote_the_progress_topic_last(
    rig: Rig,
) -> None:
    topic = rig.topic()
    rig.insert_many([topic], 10, keys=3)
    assert daemon_of(rig).run("--until-empty").code == 0
    (lineage,) = rig.sql.execute(
        progress_text("outboxd"), {"outbox": "default", "table": "outboxd.outbox", "holder": None, "timeline": None,
        "storage": None},
    ).fetchall()[0][1:2]  # fmt: skip
    progress = f"outboxd-progress-{rig.database.name}-outboxd-default"

    def warnings(lineage: str) -> list[str]:
        brokers = {"bootstrap.servers": rig.kafka.bootstrap}
        found = inspect_transactions(brokers, "outboxd-checked", progress, 1, lineage)
        return [each.message for each in found if "written last" in each.message]

    assert warnings(str(lineage)) == []
    server, database, table = str(lineage).split("-")
    assert warnings(f"{server}-{database}-{int(table) + 1}") == [], "a table that was swapped is of the same database"
    (told,) = warnings(f"{int(server) + 1}-{database}-{table}")
    assert told.startswith(f"{progress} was written last at 20")
    assert "for another database of the same name" in told


# --- A progress topic that refuses


@pytest.mark.parametrize("limit", [4_000, 100])
def test_a_progress_topic_that_refuses_is_named_and_nothing_is_sent_for_the_bin_again_and_again(
    rig: Rig, limit: int
) -> None:
    topic = rig.topic()
    progress = f"outboxd-progress-{rig.database.name}-outboxd-default"
    rig.kafka.create_topic(
        progress, partitions=1, config={"cleanup.policy": "compact", "max.message.bytes": str(limit)}
    )
    rig.insert_many([topic], 2_000, keys=100)
    daemon = daemon_of(rig, relay={**RELAY, "shutdown_timeout": "3s"})

    ended = daemon.run("--until-empty", timeout_seconds=60)

    assert daemon.events("producer_rebuilt") == []
    if limit == 100:
        assert ended.code == 69, ended.err
        opened = daemon.events("breaker_opened", topic=topic)[0]
        assert opened["error_code"] == "PROGRESS_REFUSED"
        assert progress in opened["cause"]
        # The first ones in ever smaller transactions, then a probe at a time.
        assert sum(rig.kafka.end_offsets(topic).values()) < 3 * 2_000
        assert rig.kafka.consume(topic) == []
        rig.kafka.alter_topic_config(progress, {"max.message.bytes": "1048588"})
        ended = daemon.run("--until-empty", timeout_seconds=60)
    assert ended.code == 0, ended.err
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.duplicates == 0
