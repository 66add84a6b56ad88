"""One daemon's Kafka client: a queue a partition, batches, reports in order a partition, fatal errors, late ghosts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from outboxd.kafka.plain.chain_producer import READY_SECONDS
from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, ProgressRow, Report
from outboxd.policy.faults import Fault, FaultClass, fault_of
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from tests.simulation.broker import REFUSAL, REMADE_SECONDS, Broker, Topic
from tests.simulation.database import Kind, Row

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon

FATAL = fault_of(45)
GIVEN_BACK = fault_of(-150)


class _Instance:
    """One producer: its queues and what is on the network. Once replaced or dead its answers reach nobody. One for
    `chains` sends nothing more once a batch of its failed, of which nothing is written then.
    """

    def __init__(self, broker: Broker, *, chains: bool = False) -> None:
        self.chains = chains
        self.failure: ChainFailure | None = None
        self.unwritten: set[int] = set()
        self.on_network = 0
        """So many batches are under way."""
        self.ending_until = 0.0
        self.ready_from: float | None = None
        self.makings = {name: topic.makings for name, topic in broker.topics.items()}
        self.queues: dict[tuple[str, int], deque[tuple[Record, bool]]] = {}
        self.sending: set[tuple[str, int]] = set()
        self.queued = 0
        self.is_gone = False


class SimulatedPublisher:
    """The Publisher port. `publish_alone` uses a lane of its own, as the isolating producer does."""

    def __init__(
        self, daemon: Daemon, broker: Broker, dice: random.Random, *, queue_rows_max: int, batch_rows: int
    ) -> None:
        self._daemon = daemon
        self._broker = broker
        self._dice = dice
        self._queue_rows_max = queue_rows_max
        self._batch_rows = batch_rows
        self._instance = _Instance(self._broker)
        self._chains = _Instance(self._broker, chains=True)
        self._inbox: list[Report] = []
        self._failure: DeliveryFault | None = None
        self._told: dict[str, int | None] = {}

    # The port.

    def publish(self, records: Sequence[Record], start: int) -> int:
        taken = start
        for record in records[start:]:
            if self._instance.queued >= self._queue_rows_max:
                break
            self._take(record, alone=False)
            taken += 1
        self._daemon.at_step("publishing")
        return taken

    def connection_trouble(self) -> None:
        return None

    def placement(self, topic: str) -> Placement | None:
        partitions = len(self._broker.topics[topic].logs)
        if topic not in self._told:
            # Now and then it knows the topic from before partitions were added.
            self._told[topic] = max(1, partitions - 1) if self._daemon.world.scenario.adds_partitions else partitions
        told = self._told[topic]
        return None if told is None else Placement(DEFAULT_PARTITIONER, told)

    def is_missing(self, topic: str) -> bool:
        return False

    def misplaced(self, topic: str) -> None:
        self._told[topic] = None
        partitions = len(self._broker.topics[topic].logs)
        self._broker.timeline.after(0.05, lambda: self._told.__setitem__(topic, partitions))

    def publish_alone(self, record: Record) -> bool:
        if self._instance.queued >= self._queue_rows_max:
            return False
        self._take(record, alone=True)
        return True

    def publish_chain(self, records: Sequence[Record]) -> int:
        chains = self._chains
        if chains.failure is not None or not self._are_chains_ready():
            return 0
        taken = 0
        for record in records:
            row = self._daemon.world.row(record.event_id)
            if chains.queued >= self._queue_rows_max or row.kind is Kind.REFUSED:
                break
            self._take(record, alone=False, instance=chains)
            taken += 1
        self._daemon.at_step("publishing")
        return taken

    def _are_chains_ready(self) -> bool:
        """Once they are wanted it takes a moment until they go."""
        now = self._broker.timeline.now
        if self._chains.ready_from is None:
            self._chains.ready_from = now + READY_SECONDS
            self._broker.timeline.at(self._chains.ready_from, lambda: None)
        return now >= self._chains.ready_from

    def chain_failure(self) -> ChainFailure | None:
        chains = self._chains
        return None if chains.on_network and self._broker.timeline.now < chains.ending_until else chains.failure

    def end_chains(self) -> Collection[int]:
        self._chains.is_gone = True
        unwritten, self._chains = self._chains.unwritten, _Instance(self._broker, chains=True)
        return unwritten

    def poll(self, timeout_seconds: float) -> None:
        if timeout_seconds > 0.0:
            self._daemon.rest_in_poll(has_reports=bool(self._inbox))

    def flush(self, timeout_seconds: float) -> None:
        self.poll(timeout_seconds)

    def questioned(self) -> set[int]:
        return set()

    def take_reports(self) -> list[Report]:
        reports, self._inbox = self._inbox, []
        if reports:
            self._daemon.note_delivered(reports)
        return reports

    def failure(self) -> DeliveryFault | None:
        return self._failure

    def rebuild(self) -> None:
        self._instance.is_gone = True
        self._instance = _Instance(self._broker)
        self.end_chains()
        self._inbox = []
        self._failure = None

    def purge(self) -> None:
        self._instance.queues.clear()
        self._chains.queues.clear()

    def committed(self) -> int | None:
        return None

    def settled(self, transaction: int) -> None:
        raise AssertionError("a plain producer has no transactions")

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        raise AssertionError("a plain producer has no progress records")

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        return 0, ()

    def begin_recover(self, settled: int, lineage: str) -> None:
        raise AssertionError("a plain producer has nothing to recover")

    # Faults.

    def fail(self) -> None:
        """The producer dies of a fatal error; some records come back with it, most are never reported."""
        instance = self._instance
        if self._failure is not None or instance.is_gone:
            return
        self._failure = DeliveryFault(FATAL, "fatal")
        instance.is_gone = True
        if self._dice.random() < 0.5:
            for queue in instance.queues.values():
                for record, alone in queue:
                    if self._dice.random() < 0.5:
                        self._inbox.append(Report(record, DeliveryFault(GIVEN_BACK, "fatal"), None, None, alone))
        if self._dice.random() < 0.3:
            # The records come back with that code before the error itself is seen.
            failure, self._failure = self._failure, None
            self._broker.timeline.after(0.01, lambda: self._set_failure(instance, failure))
        self._daemon.wake_soon()

    def fail_chains(self) -> None:
        """The producer of chains dies of a fatal error; what is on the network may be answered, or not."""
        if self._chains.failure is None:
            self._stop_chains(self._chains, ChainFailure(None, DeliveryFault(FATAL, "fatal")))
            if self._dice.random() < 0.5:
                self._chains.on_network = 0

    def _stop_chains(self, chains: _Instance, failure: ChainFailure) -> None:
        chains.failure = chains.failure or failure
        chains.ending_until = chains.ending_until or self._broker.timeline.now + 1.0
        for queue in chains.queues.values():
            chains.unwritten.update(record.id for record, _ in queue)
        chains.queues.clear()
        self._daemon.wake_soon()

    def _set_failure(self, instance: _Instance, failure: DeliveryFault) -> None:
        if self._instance is instance:
            self._failure = failure
            self._daemon.wake_soon()

    def die(self) -> None:
        """The process is killed: nothing more leaves it; what is on the network may land."""
        for instance in (self._instance, self._chains):
            instance.is_gone = True
            instance.queues.clear()

    # The way of a record.

    def _take(self, record: Record, *, alone: bool, instance: _Instance | None = None) -> None:
        daemon = self._daemon
        daemon.world.invariants.before_publish(daemon, record)
        row = daemon.world.row(record.event_id)
        if row.kind is Kind.KILLER:
            daemon.dies_of(row)
        if row.kind is Kind.REFUSED:
            self._inbox.append(Report(record, DeliveryFault(REFUSAL, "refused"), None, None, True))
            daemon.wake_soon()
            return
        topic = self._broker.topics[record.topic]
        count = len(topic.logs)
        certain = Placement(DEFAULT_PARTITIONER, count).partition_of(record.key)
        spread = self._dice.randrange(count) if certain is None else certain
        lane = (record.topic, spread if not alone else spread + 100)
        instance = instance or self._instance
        instance.queues.setdefault(lane, deque()).append((record, alone))
        instance.queued += 1
        if lane not in instance.sending:
            instance.sending.add(lane)
            self._broker.timeline.after(self._dice.uniform(0.0005, 0.004), lambda: self._send(instance, lane))

    def _send(self, instance: _Instance, lane: tuple[str, int]) -> None:
        if self._wait_if_frozen(instance, lane):
            return
        queue = instance.queues.get(lane)
        if instance.is_gone or not queue:
            instance.sending.discard(lane)
            return
        is_alone = queue[0][1]
        batch = [queue.popleft() for _ in range(1 if is_alone else min(len(queue), self._batch_rows))]
        delay = self._dice.uniform(0.0005, 0.01)
        instance.on_network += 1
        self._broker.timeline.after(delay, lambda: self._arrive(instance, lane, batch))

    def _wait_if_frozen(self, instance: _Instance, lane: tuple[str, int]) -> bool:
        until = self._daemon.frozen_until
        if self._broker.timeline.now < until:
            self._broker.timeline.at(until, lambda: self._send(instance, lane))
            return True
        return False

    def _arrive(self, instance: _Instance, lane: tuple[str, int], batch: list[tuple[Record, bool]]) -> None:
        """The request is at the broker, where it may have to wait; a dead client's request may land all the same."""
        timeline, dice = self._broker.timeline, self._dice
        topic = self._broker.topics[lane[0]]
        partition = lane[1] % 100
        if topic.makings != instance.makings[topic.name]:
            # It takes what it hears of the new topic for older news, and waits.
            if not instance.is_gone:
                timeline.after(REMADE_SECONDS, lambda: self._arrive(instance, lane, batch))
            return
        open_at = self._broker.open_at(topic, partition)
        if timeline.now < open_at:
            timeline.at(open_at + dice.uniform(0.0, 0.2), lambda: self._arrive(instance, lane, batch))
            return
        if topic.is_missing and not instance.is_gone and dice.random() < 0.5:
            timeline.after(dice.uniform(0.1, 1.0), lambda: self._arrive(instance, lane, batch))
            return
        if instance.is_gone and dice.random() < 0.5:
            return
        rows = [self._daemon.world.row(record.event_id) for record, _ in batch]
        placed, failed = self._broker.produce(topic, partition, rows, is_whole=instance.chains)
        slow = dice.uniform(0.2, 1.5) if dice.random() < 0.02 else dice.uniform(0.0005, 0.01)
        timeline.after(slow, lambda: self._answer(instance, lane, batch, placed, failed))

    def _answer(
        self,
        instance: _Instance,
        lane: tuple[str, int],
        batch: list[tuple[Record, bool]],
        placed: list[tuple[Row, int]],
        failed: list[tuple[Row, Fault]],
    ) -> None:
        if instance.is_gone:
            return
        offsets = {row.event_id: offset for row, offset in placed}
        faults = {row.event_id: fault for row, fault in failed}
        instance.queued -= len(batch)
        instance.on_network = max(0, instance.on_network - 1)
        if instance.chains and failed:
            reason = failed[0][1]
            if reason.fault_class is FaultClass.ROW_PERMANENT:
                instance.unwritten.update(record.id for record, _ in batch)
            self._stop_chains(instance, ChainFailure(lane[0], DeliveryFault(reason, reason.name)))
            return
        for record, alone in batch:
            fault = faults.get(record.event_id)
            if fault is None:
                self._inbox.append(Report(record, None, lane[1] % 100, offsets[record.event_id], alone))
            else:
                is_alone = alone or len(batch) == 1
                self._inbox.append(Report(record, DeliveryFault(fault, fault.name), lane[1] % 100, None, is_alone))
        self._daemon.wake_soon()
        self._send(instance, lane)


def is_held_up(topic: Topic) -> bool:
    """Say whether the topic does not work as a whole at present."""
    return topic.is_missing or topic.is_shrunk or topic.fault is not None
