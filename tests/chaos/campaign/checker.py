"""The checker: reads every record as it comes, keeps a few bytes a row, and at the end holds all against the witness.

Nothing lost, no ghost, each first occurrence in its key's order, every copy unchanged, only provable poison dead.
"""

from __future__ import annotations

import collections
import threading
import time
from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.chaos.campaign.load import DRAWN_PREFIX, LATE_PREFIX
from tests.chaos.campaign.witness import digest

TOPIC_PREFIX = "campaign-"
POISON_PREFIX = "poison-"
"""Keys of rows that may be dead, mended and replayed: out of the order."""
_LOOK_SECONDS = 2.0
_BUCKET_SECONDS = 0.05
_BUCKETS_KEPT = 20_000
_GROWTH = 1 << 18
_LATE_TOLERANCE_SECONDS = 0.25
"""A commit's time is noted a little before the commit is seen by others."""
_SHOWN = 20


@dataclass
class Verdict:
    """What the whole campaign comes to. Everything in a list is a violation."""

    written: int = 0
    delivered: int = 0
    records: int = 0
    duplicates: int = 0
    dead: int = 0
    late_in_order: int = 0
    lost: list[int] = field(default_factory=list)
    ghosts: list[int] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    inverted: list[str] = field(default_factory=list)
    wrongly_dead: list[str] = field(default_factory=list)
    poison_alive: list[int] = field(default_factory=list)

    @property
    def violations(self) -> dict[str, int]:
        """How many of each kind; empty is what is wanted."""
        names = ("lost", "ghosts", "changed", "inverted", "wrongly_dead", "poison_alive")
        return {name: len(getattr(self, name)) for name in names if getattr(self, name)}


class Stream:
    """Everything that consumers saw, from a thread of its own."""

    def __init__(self, bootstrap: str, *, committed_only: bool) -> None:
        """`committed_only` reads as exactly-once asks its consumers to."""
        self._config: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 2_000,
            "socket.timeout.ms": 5_000,
            "log_level": 0,
        }
        self._isolation = "read_committed" if committed_only else "read_uncommitted"
        self._counts = bytearray(_GROWTH)
        self._digests = array("Q", bytes(8 * _GROWTH))
        self._newest: dict[tuple[str, bytes, int], int] = {}
        self._buckets: dict[int, int] = {}
        self._assigned: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)
        self._closing = threading.Event()
        self.lock = threading.Lock()
        self.records = self.rows = self.duplicates = 0
        self.duplicates_after: collections.Counter[tuple[str, int]] = collections.Counter()
        """Duplicates by what is blamed for them: a kind of fault, and which one of the campaign's it was."""
        self.occasions: collections.Counter[str] = collections.Counter()
        self._cause = ("start", 0)
        self.inverted: list[str] = []
        self.late: list[tuple[int, int, str]] = []
        """Rows of unlocked keys that came after a newer one: (row, newer row, place)."""
        self.changed: list[str] = []
        self.broken: list[str] = []
        self.partitions = 0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(30)

    def blame(self, kind: str) -> None:
        """Blame this for the duplicates from now on: the last thing that ended an owner, a session or a server."""
        with self.lock:
            self.occasions[kind] += 1
            self._cause = (kind, self.occasions[kind])

    def count(self, record_id: int) -> int:
        """How often this row was seen."""
        return self._counts[record_id] if record_id < len(self._counts) else 0

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time without a record between two times."""
        longest, last = 0.0, since
        for bucket in range(int(since / _BUCKET_SECONDS), int(until / _BUCKET_SECONDS) + 1):
            if bucket in self._buckets:
                at = bucket * _BUCKET_SECONDS
                longest, last = max(longest, at - last), at
        return max(longest, until - last)

    # --- The thread

    def _run(self) -> None:
        consumer = Consumer(
            {
                **self._config,
                "group.id": "checker",
                "isolation.level": self._isolation,
                "enable.auto.commit": False,
                # Offsets that are gone would be acknowledged records that are gone.
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16_384,
            }
        )
        admin = AdminClient(self._config)
        looked_at = 0.0
        while not self._closing.is_set():
            if time.monotonic() - looked_at > _LOOK_SECONDS:
                looked_at = time.monotonic()
                self._look_for_partitions(consumer, admin)
            for message in consumer.consume(2_000, timeout=0.1):
                error = message.error()
                if error is None:
                    self._take(message)
                elif error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                    self.broken.append(f"{message.topic()}-{message.partition()}: {error}")
        consumer.close()

    def _look_for_partitions(self, consumer: Consumer, admin: AdminClient) -> None:
        """Topics are made and get partitions while the campaign runs."""
        try:
            topics = admin.list_topics(timeout=2).topics
        except KafkaException:
            return
        found = {
            (name, partition)
            for name, topic in topics.items()
            if name.startswith(TOPIC_PREFIX) and topic.error is None
            for partition in topic.partitions
        }
        fresh = found - self._assigned
        if fresh:
            consumer.incremental_assign([TopicPartition(name, partition, 0) for name, partition in sorted(fresh)])
            self._assigned |= fresh
            self.partitions = len(self._assigned)

    def _take(self, message: Any) -> None:
        headers = message.headers() or []
        named = dict(headers[-3:])
        record_id = int(named["outbox-id"])
        topic, key, partition = message.topic(), message.key(), message.partition()
        found = digest(
            topic=topic,
            key=key,
            event_id=named["outbox-event-id"],
            headers=headers[:-3],
            partition=partition,
            payload=message.value(),
        )
        bucket = int(time.time() / _BUCKET_SECONDS)
        if bucket not in self._buckets:
            self._buckets[bucket] = 0
            if len(self._buckets) > 2 * _BUCKETS_KEPT:
                for old in sorted(self._buckets)[:_BUCKETS_KEPT]:
                    del self._buckets[old]
        self.records += 1
        while record_id >= len(self._counts):
            self._counts.extend(bytes(_GROWTH))
            self._digests.frombytes(bytes(8 * _GROWTH))
        seen = self._counts[record_id]
        if seen:
            self._counts[record_id] = min(255, seen + 1)
            self.duplicates += 1
            self.duplicates_after[self._cause] += 1
            if self._digests[record_id] != found:
                self.changed.append(f"{record_id}: a copy differs")
            return
        self._counts[record_id] = 1
        self._digests[record_id] = found
        self.rows += 1
        if key is not None:
            self._check_order(record_id, topic, key, partition)

    def _check_order(self, record_id: int, topic: str, key: bytes, partition: int) -> None:
        place = (topic, key, partition)
        newest = self._newest.get(place, 0)
        if record_id > newest:
            self._newest[place] = record_id
            return
        if key.startswith((DRAWN_PREFIX.encode(), POISON_PREFIX.encode())):
            return
        shown = f"{topic}-{partition}/{key.decode()}"
        if key.startswith(LATE_PREFIX.encode()):
            self.late.append((record_id, newest, shown))
        else:
            self.inverted.append(f"{record_id} of {shown} came after {newest}")

    # --- The verdict

    def verdict(self, connection: psycopg.Connection[Any], edited: Collection[int]) -> Verdict:
        """Hold everything against the witness. `edited` are rows that an operator changed before a replay."""
        found = Verdict(records=self.records, delivered=self.rows, duplicates=self.duplicates)
        found.inverted = list(self.inverted)
        found.changed = list(self.changed)
        dead = dict(
            connection.execute(
                "SELECT outbox_id, error_code FROM outboxd.dead_letter"
                " WHERE status IN ('dead', 'replaying', 'discarded')"
            ).fetchall()
        )
        every = connection.execute("SELECT outbox_id, error_code FROM outboxd.dead_letter").fetchall()
        poison = dict(connection.execute("SELECT id, code FROM public.poison").fetchall())
        found.dead = len(dead)
        found.wrongly_dead = [f"{row}: {code}" for row, code in every if code not in poison.get(row, "").split("|")]
        known = bytearray(len(self._counts))
        with connection.transaction(), connection.cursor("witness") as cursor:
            cursor.itersize = 50_000
            cursor.execute("SELECT id, digest FROM public.written")
            for record_id, written in cursor:
                found.written += 1
                if not self.count(record_id):
                    if record_id not in dead:
                        found.lost.append(record_id)
                    continue
                known[record_id] = 1
                if self._digests[record_id] != written & 0xFFFF_FFFF_FFFF_FFFF and record_id not in edited:
                    found.changed.append(f"{record_id}: not as written")
        found.ghosts = [at for at, seen in enumerate(self._counts) if seen and not known[at]]
        found.poison_alive = [row for row in poison if self.count(row) and row not in edited]
        self._judge_late(connection, found)
        return found

    def _judge_late(self, connection: psycopg.Connection[Any], found: Verdict) -> None:
        """A row of unlocked keys may follow a newer one only if it was committed after it."""
        for start in range(0, len(self.late), 5_000):
            part = self.late[start : start + 5_000]
            ids = sorted({row for row, _, _ in part} | {newer for _, newer, _ in part})
            times = dict(
                connection.execute(
                    "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM public.written"
                    " WHERE id = ANY(%s)",
                    (ids,),
                ).fetchall()
            )
            for row, newer, shown in part:
                if times[row] + _LATE_TOLERANCE_SECONDS < times[newer]:
                    found.inverted.append(f"{row} of {shown} came after {newer}, and was committed before it")
                else:
                    found.late_in_order += 1


def shown(items: list[Any]) -> str:
    """The first of them, for a report."""
    return ", ".join(str(item) for item in items[:_SHOWN])


def wait_for_count(stream: Stream, ids: Collection[int], timeout_seconds: float, check: Callable[[], None]) -> float:
    """Wait until all of these rows were seen; return the seconds it took. `check` may give up by raising."""
    began_at = time.monotonic()
    while not all(stream.count(record_id) for record_id in ids):
        check()
        if time.monotonic() - began_at > timeout_seconds:
            missing = [record_id for record_id in ids if not stream.count(record_id)]
            raise TimeoutError(f"{len(missing)} of {len(ids)} rows not delivered within {timeout_seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - began_at
