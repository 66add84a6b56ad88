"""Copies of dead letters to a topic, by a small producer of their own, made when there is something to copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.client_config import DEFAULTS, UNREAD
from outboxd.kafka.codes import in_words
from outboxd.policy.dead_letter_copies import DeadCopy, copy_headers

SEND_SECONDS_MAX = 30.0
KEY_CHARS_MAX = 10_000
"""A longer key may be what the row died of."""
CRASHED_DAEMON = "CRASHED_DAEMON"
"""Who sends such a row's key, payload and headers dies of it, and a copy is sent by the daemon itself."""
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


class DeadLetterCopier:
    """Sends copies and waits for their reports. Used by one thread."""

    def __init__(self, properties: Mapping[str, str], topic: str, source: str) -> None:
        """`properties` are the user's; `source` is the outbox's name."""
        self._properties = properties
        self._made_with: Mapping[str, str] = {}
        self._topic = topic
        self._source = source
        self._producer: Producer | None = None

    def take_properties(self, properties: Mapping[str, str]) -> None:
        """Send the next copies by a new producer, with these: files that they name may have changed. May be called on
        any thread.
        """
        self._properties = properties

    def send(self, letters: Sequence[DeadCopy], stop: threading.Event) -> list[DeadCopy]:
        """Send a copy of each; return those that the broker acknowledged, unless stopped before.

        Raises:
            BrokerUnavailableError: one was refused, or not answered in time; nothing is known of the others then.
        """
        properties = self._properties
        if self._producer is None or self._made_with is not properties:
            self._producer, self._made_with = _made(properties), properties
        refused = self._sent(self._producer, letters, stop, payload_left_out=False)
        again = [letter for letter, error in refused if error.code() in _TOO_LARGE]
        others = [(letter, error) for letter, error in refused if error.code() not in _TOO_LARGE]
        if again:
            # A batch is refused whole for one of its records; alone they go with what can be told of them.
            for letter in again:
                left = self._sent(self._producer, [letter], stop, payload_left_out=False)
                others += self._sent(self._producer, [letter for letter, _ in left], stop, payload_left_out=True)
        if others:
            letter, error = others[0]
            self._producer = None
            raise BrokerUnavailableError(
                f"the copy of dead letter {letter.id} was refused by {self._topic}: {in_words(error)}; "
                "look at alerts.dead_letter_topic and at the rights on that topic"
            )
        return [] if stop.is_set() else list(letters)

    def _sent(
        self, producer: Producer, letters: Sequence[DeadCopy], stop: threading.Event, *, payload_left_out: bool
    ) -> list[tuple[DeadCopy, KafkaError]]:
        """Send, wait for the reports, and return what was refused."""
        refused: list[tuple[DeadCopy, KafkaError]] = []
        owed = 0

        def reported(letter: DeadCopy) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, _message: Message) -> None:
                nonlocal owed
                owed -= 1
                if error is not None:
                    refused.append((letter, error))

            return report

        for letter in letters:
            is_killer = letter.error_code == CRASHED_DAEMON
            without = payload_left_out or is_killer
            headers = copy_headers(letter, self._source, orjson.loads, payload_left_out=without)
            payload = None if without else letter.payload
            key = None if is_killer or len(letter.key or "") > KEY_CHARS_MAX else letter.key
            while not stop.is_set():
                try:
                    producer.produce(self._topic, payload, key, headers=list(headers), on_delivery=reported(letter))
                    owed += 1
                except BufferError:
                    # The queue may be set to less than a batch: what is in it has to leave it first.
                    producer.poll(0.1)
                    continue
                except KafkaException as error:
                    refused.append((letter, error.args[0]))
                break
        deadline = time.monotonic() + SEND_SECONDS_MAX + 5.0
        while owed and not stop.is_set():
            producer.poll(0.1)
            if time.monotonic() >= deadline:
                self._producer = None
                raise BrokerUnavailableError(f"{owed} copies of dead letters to {self._topic} had no answer in time")
        return refused


def _made(properties: Mapping[str, str]) -> Producer:
    own: dict[str, Any] = {
        **UNREAD,
        "client.id": "outboxd-dead-letters",
        "acks": "all",
        "enable.idempotence": True,
        # A copy that is not acknowledged is sent again by the next run: it may time out.
        "message.timeout.ms": round(SEND_SECONDS_MAX * 1000),
        "topic.metadata.propagation.max.ms": 3000,
        "log_level": "0",
    }
    return Producer({**DEFAULTS, **properties, **own})
