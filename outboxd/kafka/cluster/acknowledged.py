"""What the brokers acknowledged lately, to be held against the log when a producer failed as after a lossy election.

When an out-of-date replica becomes leader, acknowledged records are gone, and the idempotent producer finds that its
numbers do not fit. Or it starts anew with its numbers, as transactions do, and the next places are lower than those
before. Then the last places of each partition are compared with the log, on a thread of its own. Only a
sample of the reports is kept, so that the hot path pays next to nothing; so the count is a lower bound. `outboxd audit`
names the rows.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from confluent_kafka import KafkaException

from outboxd.errors import AccessDeniedError, BrokerUnavailableError
from outboxd.kafka.cluster.log_reader import LogReader, Partition
from outboxd.policy.exchange.auditing import Identity
from outboxd.policy.exchange.messages import Report

STRIDE = 64
SAMPLES_MAX = 256
PARTITIONS_MAX = 2_000
WAITING_MAX = 4
"""So many suspicions wait while one is looked into; further ones take the places of the oldest."""
ATTEMPTS = 5
ATTEMPT_PAUSE_SECONDS = 2.0

OnLost = Callable[[str, int, int], None]
Sample = tuple[int, Identity]


class AcknowledgedPlaces:
    """Samples of acknowledged places. `note` and `suspect` belong to the relay's thread."""

    def __init__(self, properties: Callable[[], Mapping[str, str]], source: str, on_lost: OnLost) -> None:
        """`on_lost(topic, partition, records)` is called on another thread, with a lower bound of what is lost."""
        self._properties = properties
        self._source = source
        self._on_lost = on_lost
        self._samples: dict[Partition, deque[Sample]] = {}
        self._last_offsets: dict[tuple[str, int, bool, bool], int] = {}
        """By partition and producer: each tells of its own records in their order."""
        self._taken: deque[dict[Partition, deque[Sample]]] = deque(maxlen=WAITING_MAX)
        """Samples that the thread does not look at yet."""
        self._is_looking = False
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def note(self, reports: Sequence[Report], *, are_chained: bool = False) -> None:
        """Keep some of these reports. `are_chained`: they came by the producer of chains, the others did not."""
        if self._taken:
            self._look_at_taken()
        # The last one too, so that few reports at a time leave samples as well.
        for report in reports[-1:] if len(reports) <= STRIDE else (*reports[::STRIDE], reports[-1]):
            record, error, partition, offset, alone = report
            if error is None and partition is not None and offset is not None:
                way = (record.topic, partition, are_chained, alone)
                if offset < self._last_offsets.get(way, 0):
                    # The log was cut, and written anew from there; no producer need fail of it.
                    self.suspect()
                self._samples_of((record.topic, partition)).append((offset, Identity(record.id, record.event_id)))
                self._last_offsets[way] = offset

    def _samples_of(self, partition: Partition) -> deque[Sample]:
        samples = self._samples.get(partition)
        if samples is None:
            if len(self._samples) >= PARTITIONS_MAX:
                self._forget(next(iter(self._samples)))
            samples = self._samples[partition] = deque(maxlen=SAMPLES_MAX)
        return samples

    def _forget(self, partition: Partition) -> None:
        del self._samples[partition]
        for are_chained, alone in product((False, True), repeat=2):
            self._last_offsets.pop((*partition, are_chained, alone), None)

    def suspect(self) -> None:
        """The log may have lost acknowledged records: look, on a thread of its own, at what is noted by now."""
        taken, self._samples = self._samples, {}
        self._last_offsets.clear()
        if taken:
            self._taken.append(taken)
            self._look_at_taken()

    def _look_at_taken(self) -> None:
        # One thread at most: a look may take longer than the next producer lives, and threads would pile up.
        with self._lock:
            if self._is_looking:
                return
            self._is_looking = True
        try:
            threading.Thread(target=self._work_off, name="acknowledged", daemon=True).start()
        except RuntimeError:
            # Where no thread is to be had it is tried again: nobody waits for this.
            self._is_looking = False

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    # The thread.

    def _work_off(self) -> None:
        while (taken := self._next()) is not None:
            try:
                self._check(taken)
            except BaseException:
                # The next suspicion is looked into all the same.
                self._is_looking = False
                raise

    def _next(self) -> dict[Partition, deque[Sample]] | None:
        """Return what to look at next; None ends the thread."""
        with self._lock:
            self._is_looking = bool(self._taken) and not self._closing.is_set()
            return self._taken.popleft() if self._is_looking else None

    def _check(self, taken: dict[Partition, deque[Sample]]) -> None:
        places = {partition: sorted(samples) for partition, samples in taken.items()}
        for _ in range(ATTEMPTS):
            # A partition that nobody leads yet is asked again.
            places = self._look(places)
            if not places or self._closing.wait(ATTEMPT_PAUSE_SECONDS):
                return

    def _look(self, places: dict[Partition, list[Sample]]) -> dict[Partition, list[Sample]]:
        """Return the partitions that could not be read."""
        unread: dict[Partition, list[Sample]] = {}
        try:
            reader = LogReader(self._properties(), self._source, reads_ahead=False)
        except KafkaException:
            # A file that the client needs is missing, say, which the producer read when it began: it may come back.
            return places
        try:
            for partition, samples in places.items():
                try:
                    lost = lost_records(reader, partition, samples)
                except (BrokerUnavailableError, AccessDeniedError):
                    unread[partition] = samples
                    continue
                if lost:
                    self._on_lost(*partition, lost)
        finally:
            reader.close()
        return unread


def lost_records(reader: LogReader, partition: Partition, samples: Sequence[Sample]) -> int:
    """Return how many acknowledged records of the partition are lost at least.

    A lossy election cuts a log's end off, so all records below the cut are there and none above: the lowest sample that
    is gone is found by halving.

    Args:
        reader: the log.
        partition: topic and partition.
        samples: offsets in ascending order, with the rows that were acknowledged there.
    """
    bounds = reader.bounds(partition)
    if bounds is None:
        return 0
    # What stands behind an open transaction cannot be read yet; it is there.
    kept = [sample for sample in samples if bounds.low <= sample[0] and not bounds.high <= sample[0] < bounds.end]
    first, end = 0, len(kept)
    while first < end:
        middle = (first + end) // 2
        offset, identity = kept[middle]
        is_there = offset < bounds.high and any(
            record.identity == identity for record in reader.read({partition: [offset]})
        )
        first, end = (middle + 1, end) if is_there else (first, middle)
    if first == len(kept):
        return 0
    # Where nobody wrote since, the log's end is the cut itself.
    cut_at = min(kept[first][0], bounds.end)
    return kept[-1][0] - cut_at + 1
