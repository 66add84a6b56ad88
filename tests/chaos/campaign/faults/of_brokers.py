"""Brokers that die, freeze, restart; topics that lack replicas, get partitions, or come late."""

from __future__ import annotations

import random
import time
import uuid

from confluent_kafka.admin import NewPartitions

from tests.chaos.campaign.checker import TOPIC_PREFIX, wait_for_count
from tests.chaos.campaign.faults.kind import Kind, Seen, kinds
from tests.chaos.campaign.stage import STRICT, WIDE, NotObservedError, Stage

BROKERS = (0, 1, 2)
PARTITIONS_MAX = 12
ROWS = (
    "INSERT INTO outboxd.outbox (topic, key, payload)"
    " SELECT %s, 'key-' || i, convert_to(i::text, 'UTF8') FROM generate_series(1, %s) AS i RETURNING id"
)


def kill_broker(stage: Stage, dice: random.Random) -> Seen:
    """SIGKILL to a broker, which leads a third of the partitions."""
    broker = dice.choice(BROKERS)
    began_at = time.time()
    stage.brokers.kill(broker)
    try:
        stage.hold(dice.uniform(0.5, 5.0))
        answer = stage.brokers.ping(broker, proxied=False)
    finally:
        stage.brokers.bring_back(broker)
    return _away(stage, broker, answer, began_at)


def stop_broker(stage: Stage, dice: random.Random) -> Seen:
    """SIGTERM: it hands its leaderships over."""
    broker = dice.choice(BROKERS)
    began_at = time.time()
    stage.brokers.stop_broker(broker)
    try:
        answer = stage.brokers.ping(broker, proxied=False)
    finally:
        stage.brokers.bring_back(broker)
    return _away(stage, broker, answer, began_at)


def freeze_broker(stage: Stage, dice: random.Random) -> Seen:
    """SIGSTOP: its connections stay open, and nothing answers."""
    broker = dice.choice(BROKERS)
    began_at = time.time()
    stage.brokers.pause(broker)
    try:
        answer = stage.brokers.ping(broker, proxied=False)
        stage.hold(dice.uniform(0.5, 9.0))
    finally:
        stage.brokers.resume(broker)
    seen = _away(stage, broker, answer, began_at)
    stage.until(lambda: stage.brokers.ping(broker, proxied=False), 30, "the broker answers again")
    return seen


def rolling_restart(stage: Stage, _dice: random.Random) -> Seen:
    """Each broker in its turn, as an upgrade does it."""
    began_at = time.time()
    silent = 0
    for broker in BROKERS:
        stage.brokers.stop_broker(broker)
        silent += stage.brokers.ping(broker, proxied=False) is None
        stage.brokers.bring_back(broker)
        if stage.stopping.is_set():
            break
    if not silent:
        raise NotObservedError("every broker answered all the time")
    return {"restarted": silent, **_reaction(stage, began_at)}


def all_brokers_down(stage: Stage, dice: random.Random) -> Seen:
    """SIGKILL to all three at once, for some seconds."""
    began_at = time.time()
    for broker in BROKERS:
        stage.brokers.kill(broker)
    killed_at = time.time()
    try:
        stage.hold(dice.uniform(2.0, 6.0))
        gap = stage.stream.longest_gap(killed_at, time.time())
    finally:
        stage.brokers.bring_back(*BROKERS)
    if gap < 1.0:
        raise NotObservedError(f"records came all the time; the longest gap is {gap:.2f} s")
    healed_at = time.time()
    rows = stage.stream.rows
    stage.until(lambda: stage.stream.rows > rows, 30, "records come again")
    return {
        "longest_gap_seconds": round(gap, 2),
        "first_record_after_heal_seconds": round(time.time() - healed_at, 2),
        **_reaction(stage, began_at),
    }


def too_few_replicas(stage: Stage, dice: random.Random) -> Seen:
    """A topic wants all its replicas, and one broker is dead: it waits, and nothing is counted.

    More replicas than there are brokers would not do: a topic never waits for more than it has.
    """
    broker, began_at = dice.choice(BROKERS), time.time()
    stage.brokers.alter_topic_config(STRICT, {"min.insync.replicas": "3"})
    try:
        stage.brokers.kill(broker)
        with stage.sql() as connection:
            ids = [row[0] for row in connection.execute(ROWS, (STRICT, 30)).fetchall()]
        rows = stage.stream.rows
        stage.hold(dice.uniform(4.0, 9.0))
        passed, early = stage.stream.rows - rows, sum(stage.stream.count(row_id) for row_id in ids)
    finally:
        stage.brokers.bring_back(broker)
        _insist(stage, lambda: stage.brokers.alter_topic_config(STRICT, {"min.insync.replicas": "2"}))
    waited = wait_for_count(stage.stream, ids, 60, _nothing)
    if early == len(ids):
        raise NotObservedError("its rows went all the same")
    return {
        "rows_that_waited": len(ids) - early,
        "other_rows_that_went_meanwhile": passed,
        "delivered_after_heal_seconds": round(waited, 2),
        "daemons": stage.reactions(began_at),
    }


def missing_topic(stage: Stage, dice: random.Random) -> Seen:
    """Rows for a topic that nobody has made yet; it is made, and they go."""
    topic = f"{TOPIC_PREFIX}late-{uuid.UUID(int=dice.getrandbits(128)).hex[:8]}"
    began_at = time.time()
    with stage.sql() as connection:
        ids = [row[0] for row in connection.execute(ROWS, (topic, 20)).fetchall()]
    try:
        opened = stage.event(began_at, "breaker_opened", 60, topic=topic)
    finally:
        stage.brokers.create_topic(topic, partitions=2)
    waited = wait_for_count(stage.stream, ids, 60, _nothing)
    return {
        "breaker": opened.fields.get("error_code"),
        "opened_after_seconds": round(opened.at - began_at, 2),
        "delivered_after_creation_seconds": round(waited, 2),
        "rows": len(ids),
    }


def partitions_added(stage: Stage, _dice: random.Random) -> Seen:
    """A topic gets one more partition under load."""
    before = len(stage.brokers.leaders(WIDE))
    if before >= PARTITIONS_MAX:
        raise NotObservedError(f"it has {before} partitions already")
    for future in stage.brokers.admin.create_partitions([NewPartitions(WIDE, before + 1)]).values():
        future.result(20)
    stage.until(lambda: len(stage.brokers.leaders(WIDE)) > before, 20, "the partition is there")
    return {"partitions": before + 1}


def _away(stage: Stage, broker: int, answer: float | None, began_at: float) -> Seen:
    if answer is not None:
        raise NotObservedError(f"broker {broker} answered in {answer:.2f} s")
    return {
        "broker": broker,
        "answer": "none",
        "away_seconds": round(time.time() - began_at, 2),
        **_reaction(stage, began_at),
    }


def _reaction(stage: Stage, began_at: float) -> Seen:
    return {
        "longest_gap_of_deliveries_seconds": round(stage.stream.longest_gap(began_at, time.time()), 2),
        "daemons": stage.reactions(began_at),
    }


def _insist(stage: Stage, action: object) -> None:
    """Put it right, however long brokers are away meanwhile."""
    assert callable(action)
    deadline = time.monotonic() + 90
    while True:
        try:
            action()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _nothing() -> None:
    """Nothing to look at while waiting."""


KINDS: tuple[Kind, ...] = (
    *kinds("brokers", kill_broker, freeze_broker, weight=2.0, hinders_delivery=True),
    *kinds("brokers", stop_broker, hinders_delivery=True),
    *kinds("brokers", rolling_restart, all_brokers_down, weight=0.5, hinders_delivery=True),
    *kinds("brokers", too_few_replicas, hinders_delivery=True),
    *kinds("own", missing_topic),
    *kinds("own", partitions_added, weight=0.3),
)
