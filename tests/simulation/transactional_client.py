"""A simulated transactional producer, as librdkafka behaves: calls that time out and are made again, batches by the
partition, a verdict that spoils the transaction, fencing, and requests of the dead that arrive all the same.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from outboxd.policy.faults import Fault
from tests.simulation.broker import REMADE_SECONDS, Broker
from tests.simulation.coordinator import Coordinator
from tests.simulation.database import Kind, Row

if TYPE_CHECKING:
    from tests.simulation.transactional_publisher import SimulatedTransactionalPublisher

CONCURRENT_TRANSACTIONS = 51
POLL_SECONDS = 0.05
CONFLICT_SHARE = 0.02
CAUSELESS_SHARE = 0.01
SLOW_SHARE = 0.03

Entry = tuple[Row | None, Any, bytes]
"""A record in the queue: its row and callback, or None and its value where it is a progress record."""


@dataclass(slots=True)
class Call:
    """A transactional call under way: it goes on though its caller ran out of time."""

    kind: str
    is_done: bool = False
    error: KafkaError | None = None


class TransactionalClient:
    """What `Transactions` needs of `confluent_kafka.Producer`."""

    def __init__(
        self, publisher: SimulatedTransactionalPublisher, coordinator: Coordinator, broker: Broker, *, batch_rows: int
    ) -> None:
        self._publisher = publisher
        self._coordinator = coordinator
        self._broker = broker
        self._batch_rows = batch_rows
        self._dice: random.Random = publisher.dice
        self._timeline = broker.timeline
        self._epoch = -1
        self._call: Call | None = None
        self._queues: dict[tuple[str, int], deque[Entry]] = {}
        self._sending: set[tuple[str, int]] = set()
        self._outstanding = 0
        self._reports: list[Callable[[], None]] = []
        self._generation = 0
        self._is_spoilt = False
        self._fatal: KafkaError | None = None
        self._makings = {name: topic.makings for name, topic in broker.topics.items()}
        self.is_gone = False

    # Calls that wait.

    def init_transactions(self, seconds: float) -> None:
        self._wait_for("init", seconds)

    def begin_transaction(self) -> None:
        self._raise_fatal()
        self._is_spoilt = False

    def commit_transaction(self, seconds: float) -> None:
        self._raise_fatal()
        if self._call is None and self._dice.random() < CAUSELESS_SHARE:
            self._is_spoilt = True
        until = self._timeline.now + seconds
        while self._outstanding and not self._is_spoilt and self._fatal is None:
            if self._timeline.now >= until:
                raise KafkaException(_timed_out())
            self._publisher.pause(min(POLL_SECONDS, until - self._timeline.now))
        self._raise_fatal()
        if self._is_spoilt:
            raise KafkaException(KafkaError(KafkaError._STATE, "abort it", False, False, True))
        self._wait_for("commit", max(0.0, until - self._timeline.now))

    def abort_transaction(self, seconds: float) -> None:
        self._raise_fatal()
        self.purge()
        self._wait_for("abort", seconds)
        self._is_spoilt = False

    def poll(self, seconds: float) -> int:
        if not self._reports and seconds > 0:
            self._publisher.pause(seconds)
        reports, self._reports = self._reports, []
        for report in reports:
            report()
        self._raise_fatal()
        return len(reports)

    def flush(self, seconds: float) -> int:
        return self.poll(seconds)

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._publisher.pause(self._dice.uniform(0.0005, 0.01))
        if self._timeline.now < self._broker.down_until:
            self._publisher.pause(timeout)
        if self._timeline.now < self._broker.down_until:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no broker answers", False, True))
        found = self._broker.topics.get(topic)
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if found is not None and found.is_missing else None
        partitions = dict.fromkeys(range(1 if found is None else len(found.logs)))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=error, partitions=partitions)})

    # Calls that do not.

    def __len__(self) -> int:
        return self._outstanding + len(self._reports)

    def produce(self, topic: str, value: bytes, key: Any, partition: int, callback: Any = None, *_: Any) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        row: Row | None = None
        if callback is not None:
            row = self._publisher.row(callback.event_id)
            if row.kind is Kind.KILLER:
                self._publisher.die_of(row)
            if self._outstanding >= self._publisher.queue_rows_max:
                raise BufferError("the queue is full")
            if row.kind is Kind.REFUSED:
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "refused by the client"))
            count = len(self._broker.topics[topic].logs)
            partition = self._dice.randrange(count) if key is None else zlib.crc32(key.encode()) % count
        lane = (topic, partition)
        self._queues.setdefault(lane, deque()).append((row, callback, value))
        self._outstanding += 1
        if lane not in self._sending:
            self._sending.add(lane)
            generation = self._generation
            self._timeline.after(self._dice.uniform(0.0005, 0.004), lambda: self._send(lane, generation))

    def purge(self, **_: Any) -> None:
        """Drop what is queued; what is on the network has nobody who waits for it."""
        for queue in self._queues.values():
            for _row, callback, _value in queue:
                self._report(callback, KafkaError(KafkaError._PURGE_QUEUE), 0, 0)
        self._queues.clear()
        self._sending.clear()
        # What failed keeps the transaction from being committed, the purged with it.
        self._is_spoilt = self._is_spoilt or self._outstanding > 0
        self._outstanding = 0
        self._generation += 1

    def fail(self, error: KafkaError) -> None:
        """Die of a fatal error."""
        self._fatal = self._fatal or error
        self._publisher.wake()

    # Requests of the coordinator.

    def _wait_for(self, kind: str, seconds: float) -> None:
        call = self._call
        if call is None or call.kind != kind:
            call = self._call = Call(kind)
            self._request(call)
        until = self._timeline.now + seconds
        while not call.is_done:
            if self._timeline.now >= until:
                raise KafkaException(_timed_out())
            self._publisher.pause(until - self._timeline.now)
        self._call = None
        if call.error is not None:
            if call.error.fatal():
                self._fatal = call.error
            raise KafkaException(call.error)

    def _request(self, call: Call) -> None:
        self._later(lambda: self._at_coordinator(call))

    def _later(self, action: Callable[[], None]) -> None:
        """Let it happen after a request's way, which is long at times."""
        dice = self._dice
        slow = max(self._broker.slow_share, 0.0 if self._publisher.is_healed() else SLOW_SHARE)
        delay = dice.uniform(0.5, 7.0) if dice.random() < slow else dice.uniform(0.0005, 0.01)
        self._timeline.after(delay, action)

    def _at_coordinator(self, call: Call) -> None:
        timeline, dice = self._timeline, self._dice
        if self.is_gone and dice.random() < 0.5:
            return
        if timeline.now < self._broker.down_until:
            timeline.at(self._broker.down_until + dice.uniform(0.0, 0.2), lambda: self._at_coordinator(call))
            return
        if not self.is_gone and dice.random() < CONFLICT_SHARE:
            self._later(lambda: self._answer(call, KafkaError(CONCURRENT_TRANSACTIONS, "concurrent", False, True)))
            return
        if call.kind == "init":
            self._epoch = self._coordinator.init()
            error = None
        else:
            is_ended = self._coordinator.end(self._epoch, commit=call.kind == "commit")
            error = None if is_ended else _fenced()
        self._later(lambda: self._answer(call, error))

    def _answer(self, call: Call, error: KafkaError | None) -> None:
        call.is_done, call.error = True, error
        self._publisher.wake()

    # The way of a record.

    def _send(self, lane: tuple[str, int], generation: int) -> None:
        if generation != self._generation or self.is_gone:
            return
        frozen_until = self._publisher.frozen_until()
        if self._timeline.now < frozen_until:
            self._timeline.at(frozen_until, lambda: self._send(lane, generation))
            return
        queue = self._queues.get(lane)
        if not queue or self._is_spoilt:
            self._sending.discard(lane)
            return
        batch = [queue.popleft() for _ in range(min(len(queue), self._batch_rows))]
        self._timeline.after(self._dice.uniform(0.0005, 0.01), lambda: self._arrive(lane, batch, generation))

    def _arrive(self, lane: tuple[str, int], batch: list[Entry], generation: int) -> None:
        timeline, dice = self._timeline, self._dice
        topic = self._broker.topics.get(lane[0])
        if topic is not None and topic.makings != self._makings[topic.name]:
            # It takes what it hears of the new topic for older news, and waits.
            if not self.is_gone and generation == self._generation:
                timeline.after(REMADE_SECONDS, lambda: self._arrive(lane, batch, generation))
            return
        open_at = self._broker.down_until if topic is None else self._broker.open_at(topic, lane[1])
        if timeline.now < open_at:
            timeline.at(open_at + dice.uniform(0.0, 0.2), lambda: self._arrive(lane, batch, generation))
            return
        if self.is_gone and dice.random() < 0.5:
            return
        if generation != self._generation and dice.random() < 0.5:
            return
        if generation != self._generation and self._epoch == self._coordinator.epoch and not self.is_gone:
            # It was aborted before this arrived: the broker knows by the sequence.
            return
        failed: dict[str, Fault] = {}
        placed: dict[str, int] = {}
        joined = self._coordinator.join(self._epoch)
        if joined is None:
            self._later(lambda: self.fail(_fenced()))
            return
        if topic is None:
            joined.progress += [value for _, _, value in batch]
        else:
            rows = [row for row, _, _ in batch if row is not None]
            done, refused = self._broker.produce(topic, lane[1], rows, joined.records)
            placed = {row.event_id: offset for row, offset in done}
            failed = {row.event_id: fault for row, fault in refused}
        timeline.after(dice.uniform(0.0005, 0.01), lambda: self._answered(lane, batch, generation, placed, failed))

    def _answered(
        self,
        lane: tuple[str, int],
        batch: list[Entry],
        generation: int,
        placed: dict[str, int],
        failed: dict[str, Fault],
    ) -> None:
        if generation != self._generation or self.is_gone:
            return
        self._outstanding -= len(batch)
        for row, callback, _ in batch:
            if row is None:
                continue
            fault = failed.get(row.event_id)
            error = None if fault is None else KafkaError(fault.code)
            self._report(callback, error, lane[1], placed.get(row.event_id, -1))
        if failed:
            self._is_spoilt = True
        self._publisher.wake()
        self._send(lane, generation)

    def _report(self, callback: Any, error: KafkaError | None, partition: int, offset: int) -> None:
        if callback is not None:
            message = SimpleNamespace(partition=lambda: partition, offset=lambda: offset)
            self._reports.append(lambda: callback(error, message))

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)


def _timed_out() -> KafkaError:
    return KafkaError(KafkaError._TIMED_OUT, "timed out", False, True)


def _fenced() -> KafkaError:
    return KafkaError(KafkaError._FENCED, "fenced", True)
