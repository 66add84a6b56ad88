"""The real transactional publisher in the simulation: its worker on a simulated thread, its client a simulated one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.transactional.progress import ProgressRecord, decode
from outboxd.kafka.transactional.shard_clients import ShardClients
from outboxd.kafka.transactional.transaction_worker import Jobs
from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.transactional.verdicts import Way
from outboxd.policy.rows.records import Record
from tests.simulation.broker import Broker
from tests.simulation.coordinator import Coordinator
from tests.simulation.database import Row
from tests.simulation.threads import SimulatedJobs, SimulatedThread
from tests.simulation.transactional_client import TransactionalClient

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon

READ_SECONDS = 5.0
FOR_EVER_SECONDS = 1e6


class SimulatedTransactionalPublisher(TransactionalPublisher):
    """The Publisher port of exactly-once delivery: everything of it is the real one but clock, thread and client."""

    def __init__(
        self,
        daemon: Daemon,
        broker: Broker,
        coordinator: Coordinator,
        dice: random.Random,
        *,
        queue_rows_max: int,
        batch_rows: int,
        timeout_seconds: float,
    ) -> None:
        self._daemon = daemon
        self._broker = broker
        self._coordinator = coordinator
        self._batch_rows = batch_rows
        self._producers: list[TransactionalClient] = []
        self._threads: list[SimulatedThread] = []
        self.dice = dice
        self.queue_rows_max = queue_rows_max
        properties = {"transaction.timeout.ms": str(int(timeout_seconds * 1000))}
        super().__init__(properties, daemon.post, source="default", schema="outboxd")
        self._size.rows_max = self._size.rows = queue_rows_max
        self.name_after("simulated")

    # What the real one has made for it.

    def _make_clients(self, properties: Mapping[str, str], source: str, schema: str) -> ShardClients:
        return SimulatedClients(self, properties, source, schema)

    def _monotonic(self) -> float:
        return self._broker.timeline.now

    def _make_jobs(self) -> Jobs:
        return SimulatedJobs(self._broker.timeline)

    def _begin(self, work: Callable[[], None]) -> None:
        jobs = cast(SimulatedJobs, self._jobs)
        thread = SimulatedThread(
            self._broker.timeline, work, frozen_until=self.frozen_until, on_pause=self._tell_the_relay
        )
        jobs.thread = thread
        self._threads = [one for one in self._threads if not one.is_over] + [thread]

    def _start_worker(self) -> None:
        super()._start_worker()
        if self._daemon.world.scenario.seed % 2:
            # A history is short: the real bounds are seldom met in it.
            self._handover.unsettled_max, self._handover.restated_from = 4, 2

    def _tell_the_relay(self) -> None:
        if not self._handover.ended.empty() or self._handover.failure is not None:
            self._daemon.wake_soon()

    # What its clients ask.

    def make_producer(self, way: Way) -> TransactionalClient:
        if self._producers:
            # The one before was dropped: its threads end, what it sent may arrive.
            self._producers[-1].is_gone = True
        rows = 1 if way is Way.LONE else self._batch_rows
        producer = TransactionalClient(self, self._coordinator, self._broker, batch_rows=rows)
        self._producers.append(producer)
        return producer

    def read_above(self, number: int, lineage: str) -> Sequence[ProgressRecord]:
        until = self._monotonic() + READ_SECONDS
        self.pause(self.dice.uniform(0.001, 0.05))
        while self._monotonic() < self._broker.down_until:
            if self._monotonic() >= until:
                raise BrokerUnavailableError("the progress topic cannot be read")
            self.pause(0.5)
        records = [decode(value) for value in self._coordinator.progress]
        ours = [record for record in records if record.lineage == lineage and record.number > number]
        return sorted(ours, key=lambda record: record.number)

    def frozen_until(self) -> float:
        return self._daemon.frozen_until

    def is_healed(self) -> bool:
        return self._daemon.world.is_healed

    def row(self, event_id: str) -> Row:
        return self._daemon.world.row(event_id)

    def pause(self, seconds: float) -> None:
        """Let the worker that asks wait."""
        self._running().pause(seconds)

    def _running(self) -> SimulatedThread:
        return next(thread for thread in self._threads if thread.is_running)

    def wake(self) -> None:
        for thread in self._threads:
            thread.wake()

    # The port, where the simulation looks on.

    def publish(self, records: Sequence[Record], start: int) -> int:
        taken = super().publish(records, start)
        for record in records[start:taken]:
            self._daemon.world.invariants.before_publish(self._daemon, record)
        self._daemon.at_step("publishing")
        return taken

    def poll(self, timeout_seconds: float) -> None:
        super().poll(0.0)
        if timeout_seconds > 0.0:
            self._daemon.rest_in_poll(has_reports=bool(self._taken))

    # Faults.

    def fail(self) -> None:
        """The producer dies of a fatal error."""
        if self._producers:
            self._producers[-1].fail(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "fatal", True))

    def die_of(self, row: Row) -> None:
        """The process dies while its worker gives the row to the client."""
        self._daemon.dies_of(row)
        self.pause(FOR_EVER_SECONDS)

    def die(self) -> None:
        """The process is killed: nothing more leaves it; what is on the network may land."""
        for producer in self._producers:
            producer.is_gone = True
        for thread in self._threads:
            thread.kill()


class SimulatedClients(ShardClients):
    """The real names, and clients of the simulation's broker."""

    def __init__(
        self, publisher: SimulatedTransactionalPublisher, properties: Mapping[str, str], source: str, schema: str
    ) -> None:
        super().__init__(properties, source=source, schema=schema, rows_max=publisher.queue_rows_max)
        self._publisher = publisher

    def make_producer(self, way: Way) -> Any:
        return self._publisher.make_producer(way)

    def read_above(self, number: int, lineage: str) -> Sequence[ProgressRecord]:
        return self._publisher.read_above(number, lineage)
