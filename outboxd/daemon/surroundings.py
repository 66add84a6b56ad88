"""The surroundings of the relay: the page, housekeeping, alerts, the wake-up, and the questions to brokers: whether one
answers, and whether a topic that stands still is another one.

All of it may fail or be slow, and the relay goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from outboxd.config import Settings
from outboxd.daemon.assembly import Assembly
from outboxd.errors import ConfigError
from outboxd.kafka.client.cluster_failure import in_full
from outboxd.kafka.cluster.remade_topics import RemadeTopicsWatch
from outboxd.kafka.dead_letter_copies import DeadLetterCopier
from outboxd.maintenance.alerts import Alerts
from outboxd.maintenance.jobs import Jobs
from outboxd.observability.metrics import Metrics
from outboxd.observability.observer import DaemonObserver
from outboxd.observability.status import StatusBoard
from outboxd.policy.exchange.messages import TellEvent
from outboxd.postgres.connections.wakeup import WakeUp
from outboxd.postgres.operators.dead_letter_copies import DeadLetterCopyRows
from outboxd.postgres.operators.dead_letters import DeadLetters
from outboxd.postgres.upkeep.housekeeping import Housekeeping
from outboxd.stopwatch import Stopwatch
from outboxd.web.app import App
from outboxd.web.guard import Guard
from outboxd.web.listening import Listening

if TYPE_CHECKING:
    from outboxd.relay.relay import Relay

SEEN_WITHIN_SECONDS = 15.0
"""After so long at most the board and the metrics know that no broker answers, whether anything is sent or not."""
CONTACT_SECONDS = 5.0
CONTACT_PAUSE_SECONDS = SEEN_WITHIN_SECONDS - CONTACT_SECONDS - 1.0
"""The second is for threads that wait for the processor."""
CONTACT_RETRY_SECONDS = 1.0

CLUSTER_CHANGED = "another Kafka cluster answers"
TOPICS_REMADE = "a topic that stands still was deleted and created again"
"""Why the relay takes a new producer."""


class BrokerContact:
    """Asks a broker for its metadata now and then, so that the status tells the truth while nothing is sent."""

    def __init__(
        self,
        contact: Callable[[float], str | None],
        board: StatusBoard,
        event: TellEvent,
        why: Callable[[], str | None] = lambda: None,
        cluster_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask nothing yet.

        Args:
            contact: returns the cluster's id within so many seconds. Raises KafkaException when no broker answers.
            board: learns whether one does.
            event: tells people.
            why: returns what the producer knows of the reason.
            cluster_changed: another cluster answers. A client keeps what it knew of the topics of the one before, where
                that looks newer, and may then wait for ever.
        """
        self._contact = contact
        self._board = board
        self._event = event
        self._why = why
        self._is_failure_told = False
        self._cluster_changed = cluster_changed
        self._cluster_id: str | None = None
        self._stopping = threading.Event()
        self._answered = threading.Event()
        self.under_way = Stopwatch()
        self._thread = threading.Thread(target=self._work, name="broker-contact", daemon=True)

    @property
    def has_answered(self) -> bool:
        """Whether a broker answered once."""
        return self._answered.is_set()

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question under way ends by itself."""
        self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                with self.under_way.running():
                    cluster_id = self._contact(CONTACT_SECONDS)
            except (KafkaException, ValueError) as error:
                self._failed(self._why() or _cause(error))
                self._stopping.wait(CONTACT_RETRY_SECONDS)
                continue
            self._board.kafka_answers(True)
            if self._is_failure_told:
                self._is_failure_told = False
                self._event("kafka_answers")
            self._note(cluster_id)
            self._answered.set()
            self._stopping.wait(CONTACT_PAUSE_SECONDS)

    def _note(self, cluster_id: str | None) -> None:
        former, self._cluster_id = self._cluster_id, cluster_id or self._cluster_id
        if former is not None and former != self._cluster_id:
            self._event("kafka_cluster_changed", former=former, cluster=self._cluster_id)
            self._cluster_changed()

    def _failed(self, cause: str) -> None:
        self._board.kafka_answers(False, cause)
        if not self._is_failure_told:
            self._is_failure_told = True
            self._event("kafka_failed", cause=cause)


def _cause(error: KafkaException | ValueError) -> str:
    """Return what people are told where the producer knows nothing of the reason, as while a broker stands still."""
    return in_full(error.args[0]) if isinstance(error, KafkaException) else str(error)


class Surroundings:
    """Started after the relay's parts were made, closed before them."""

    def __init__(
        self, assembly: Assembly, observer: DaemonObserver, alerts: Alerts, board: StatusBoard, metrics: Metrics
    ) -> None:
        """Make all; only the alerts, which the observer is made with, run already."""
        settings = assembly.settings
        schema, outbox = settings.database.schema_, settings.outbox.name
        self.alerts = alerts
        publisher = assembly.publisher
        self.contact = BrokerContact(
            publisher.contact,
            board,
            observer.event,
            lambda: publisher.cluster_error,
            partial(assembly.renew_clients, CLUSTER_CHANGED),
        )
        self._assembly, self._event, self._monotonic = assembly, observer.event, board.monotonic
        self._kafka_properties = settings.kafka.properties
        self._remade_topics = RemadeTopicsWatch(lambda: self._kafka_properties, self._take_remade)
        self._copier = _copier(settings)
        self.jobs = Jobs(
            Housekeeping(assembly.engine, schema, settings.outbox.table, outbox),
            board,
            metrics,
            observer.event,
            schema=schema,
            published_retention_seconds=settings.housekeeping.published_retention_seconds,
            dead_letter_retention_seconds=settings.housekeeping.dead_letter_retention_seconds,
            copies=None
            if self._copier is None
            else (DeadLetterCopyRows(assembly.engine, schema, outbox), self._copier),
        )
        self.wake_up: WakeUp | None = None
        if settings.relay.listen:
            self.wake_up = WakeUp(assembly.engine, assembly.mailbox.post, outbox=outbox, event=observer.event)
        self._guard: Guard | None = None
        self.server: Listening | None = None
        if settings.http.address is not None:
            host, port = settings.http.address
            self._guard = Guard(host, settings.http.token, board.monotonic)
            letters = DeadLetters(assembly.engine, schema, outbox)
            app = App(board, metrics.registry, self._guard, event=observer.event, dead_letters=letters, schema=schema)
            self.server = _listening(app, host, port, observer.event)

    def start(self) -> None:
        """Start all of it."""
        if self.server is not None:
            self.server.start()
        self.contact.start()
        self.jobs.start()
        if self.wake_up is not None:
            self.wake_up.start()

    def look(self, relay: Relay) -> None:
        """Look at the relay, on its own thread, a few times a second."""
        if relay.state.token is not None:
            topics = [lane.topic for lane in relay.state.lanes.topics()]
            self._remade_topics.look(topics, relay.ownership.watch.still_topics, self._monotonic())

    def _take_remade(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._event("topic_remade", topic=topic)
        self._assembly.renew_clients(TOPICS_REMADE)

    def reconfigure(self, settings: Settings) -> None:
        """Take what may change while it runs."""
        self._kafka_properties = settings.kafka.properties
        self.jobs.published_retention_seconds = settings.housekeeping.published_retention_seconds
        self.jobs.dead_letter_retention_seconds = settings.housekeeping.dead_letter_retention_seconds
        self.alerts.set_command(settings.alerts.command)
        if self._copier is not None:
            self._copier.take_properties(settings.kafka.properties)
        if self._guard is not None:
            self._guard.token = settings.http.token

    def close(self) -> None:
        """End all of it."""
        self.contact.stop()
        self.jobs.stop()
        if self.wake_up is not None:
            self.wake_up.close()
        if self.server is not None:
            self.server.stop()
        self.alerts.close()


def _copier(settings: Settings) -> DeadLetterCopier | None:
    """What copies dead letters to Kafka, where a topic for them is configured."""
    topic = settings.alerts.dead_letter_topic
    return DeadLetterCopier(settings.kafka.properties, topic, settings.outbox.name) if topic else None


def _listening(app: App, host: str, port: int, event: Callable[..., None]) -> Listening:
    try:
        return Listening(app, host, port, event)
    except OSError as error:
        raise ConfigError(
            f"http.listen: {host}:{port} cannot be listened on: {error.strerror or error}; take a port above "
            '1023, or http.listen = "" for none'
        ) from error
