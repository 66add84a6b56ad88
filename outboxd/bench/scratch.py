"""What a benchmark makes on the user's servers, and takes away again: one schema, some topics."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from sqlalchemy import Connection, Engine

from outboxd.config import AlertSettings, HttpSettings, LogSettings, OutboxSettings, Settings
from outboxd.errors import AccessDeniedError, BrokerUnavailableError, OutboxdError
from outboxd.kafka.client.client_config import CLIENT_LOGGER
from outboxd.kafka.client.codes import FORBIDDEN, NO_TOPIC
from outboxd.kafka.transactional.progress import progress_topic
from outboxd.postgres.connections.engine import make_engine
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.migrate import upgrade
from outboxd.postgres.schema.names import quoted

PARTITIONS: Final = 6
CONTACT_SECONDS_MAX: Final = 10.0
KAFKA_SECONDS_MAX: Final = 30.0
STATEMENT_SECONDS_MAX: Final = 300.0


class Scratch:
    """From `with` to its end. What could not be removed is told by `remark`, with its name."""

    def __init__(self, settings: Settings, remark: Callable[[str], None]) -> None:
        """Nothing is made yet; `settings` are the user's."""
        self._given = settings
        self._remark = remark
        self._ends = ExitStack()
        self._suffix = secrets.token_hex(4)
        self.name = f"outboxd_bench_{self._suffix}"
        self.outbox = f"bench-{self._suffix}"
        self._topics_made = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()

    def _start(self) -> None:
        database = self._given.database
        self.engine: Engine = make_engine(
            database.url,
            database.password,
            application_name="outboxd bench",
            idle_in_transaction_timeout_seconds=STATEMENT_SECONDS_MAX,
            statement_timeout_seconds=STATEMENT_SECONDS_MAX,
        )
        self._ends.callback(self.engine.dispose)
        # Kept for as long as its futures run.
        self._admin = AdminClient({"client.id": "outboxd-bench", **self._given.kafka.properties}, logger=CLIENT_LOGGER)
        try:
            known: Any = self._admin.list_topics(timeout=CONTACT_SECONDS_MAX)
        except KafkaException as error:
            raise _explained(error, "ask the brokers for their topics") from error
        self.database = _current_database(self.engine)
        self._existing = frozenset(known.topics)
        self._ends.callback(self._drop_schema)
        with explained():
            upgrade(self.engine, self.name)

    def settings(self, *, after_publish: str, delivery: str = "at-least-once") -> Settings:
        """The user's settings for the relay on the scratch schema; no page, no alerts, no routes."""
        given = self._given
        relay = given.relay.model_copy(update={"after_publish": after_publish, "delivery": delivery})
        return given.model_copy(
            update={
                "database": given.database.model_copy(update={"schema_": self.name}),
                "outbox": OutboxSettings(name=self.outbox),
                "relay": relay,
                "routes": (),
                "alerts": AlertSettings(),
                "http": HttpSettings(listen=""),
                "log": LogSettings(level="warning", format="json"),
            }
        )

    def topic(self, partitions: int = PARTITIONS) -> str:
        """Make a topic with the cluster's default settings; it is removed at the end."""
        self._topics_made += 1
        name = f"outboxd-bench-{self._suffix}-{self._topics_made}"
        self._ends.callback(self._delete_topic, name)
        future = self._admin.create_topics(
            [NewTopic(name, num_partitions=partitions)], request_timeout=KAFKA_SECONDS_MAX
        )[name]
        try:
            future.result(KAFKA_SECONDS_MAX + 1)
            self._wait_for_leaders(name, partitions)
        except KafkaException as error:
            raise _explained(error, f"make the topic {name}") from error
        except TimeoutError:
            raise BrokerUnavailableError(
                f"Kafka did not make the topic {name} within {KAFKA_SECONDS_MAX:g} s; look at the brokers"
            ) from None
        return name

    def expect_progress_topic(self) -> None:
        """The relay is about to make its progress topic, by exactly-once delivery: remove that too."""
        name = progress_topic(self.database, self.name, self.outbox)
        if name not in self._existing:
            self._ends.callback(self._delete_topic, name)

    def empty(self, connection: Connection) -> None:
        """Forget all rows of the measurement before."""
        schema = quoted(self.name)
        connection.exec_driver_sql(f"TRUNCATE {schema}.outbox, {schema}.retry, {schema}.dead_letter")

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        deadline = time.monotonic() + KAFKA_SECONDS_MAX
        while time.monotonic() < deadline:
            found = self._admin.list_topics(topic, timeout=KAFKA_SECONDS_MAX).topics[topic].partitions
            if len(found) == partitions and all(each.leader >= 0 for each in found.values()):
                return
            time.sleep(0.05)
        raise BrokerUnavailableError(f"the new topic {topic} has no leader after {KAFKA_SECONDS_MAX:g} s")

    # What is removed; one failure keeps no other thing.

    def _drop_schema(self) -> None:
        try:
            with explained(), self.engine.connect() as connection:
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {quoted(self.name)} CASCADE")
        except OutboxdError as error:
            self._remark(f"the schema {self.name} could not be dropped ({error}); drop it by hand")

    def _delete_topic(self, name: str) -> None:
        try:
            self._admin.delete_topics([name], request_timeout=KAFKA_SECONDS_MAX)[name].result(KAFKA_SECONDS_MAX + 1)
        except KafkaException as error:
            if error.args[0].code() not in NO_TOPIC:
                self._remark(f"the topic {name} could not be deleted ({error.args[0].str()}); delete it by hand")
        except TimeoutError:
            self._remark(f"the topic {name} could not be deleted (no answer); delete it by hand")


def _current_database(engine: Engine) -> str:
    with explained(), engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT current_database()").scalar_one())


def _explained(error: KafkaException, what: str) -> OutboxdError:
    code = error.args[0]
    if code.code() in FORBIDDEN:
        return AccessDeniedError(f"Kafka does not let this user {what}: {code.str()}; grant it for outboxd-bench-*")
    return BrokerUnavailableError(f"Kafka did not {what}: {code.str()}; look at [kafka], and at the brokers")
