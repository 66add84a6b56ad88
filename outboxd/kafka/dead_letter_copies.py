"""Copies of dead letters to a topic, by a small producer of their own, made when there is something to copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outboxd.kafka.client.client_config import DEFAULTS, UNREAD, silent
from outboxd.kafka.client.codes import in_words
from outboxd.policy.exchange.dead_letter_copies import DeadCopy, Sent, copy_headers

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

    def send(self, letters: Sequence[DeadCopy], stop: threading.Event) -> Sent:
        """Send a copy of each; return those that the broker acknowledged, and why it has not the others."""
        properties = self._properties
        if self._producer is None or self._made_with is not properties:
            self._producer, self._made_with = _made(properties), properties
        producer = self._producer
        reports = self._sent(producer, letters, stop, payload_left_out=False)
        # A batch is refused whole for one of its records; alone they go with what can be told of them.
        for letter in reports.take_too_large():
            alone = self._sent(producer, [letter], stop, payload_left_out=False)
            if alone.take_too_large():
                alone = self._sent(producer, [letter], stop, payload_left_out=True)
            reports.add(alone)
        failure = "" if stop.is_set() else self._failure(reports)
        if failure:
            self._producer = None
        return Sent(reports.acknowledged, failure)

    def _failure(self, reports: _Reports) -> str:
        if reports.refused:
            letter, error = reports.refused[0]
            return (
                f"the copy of dead letter {letter.id} was refused by {self._topic}: {in_words(error)}; "
                "look at alerts.dead_letter_topic and at the rights on that topic"
            )
        if reports.owed:
            return f"{reports.owed} copies of dead letters to {self._topic} had no answer in time"
        return ""

    def _sent(
        self, producer: Producer, letters: Sequence[DeadCopy], stop: threading.Event, *, payload_left_out: bool
    ) -> _Reports:
        """Send, and wait for the reports."""
        reports = _Reports()
        for letter in letters:
            is_killer = letter.error_code == CRASHED_DAEMON
            without = payload_left_out or is_killer
            headers = copy_headers(letter, self._source, orjson.loads, payload_left_out=without)
            payload = None if without else letter.payload
            key = None if is_killer or len(letter.key or "") > KEY_CHARS_MAX else letter.key
            while not stop.is_set():
                try:
                    producer.produce(self._topic, payload, key, headers=list(headers), on_delivery=reports.of(letter))
                    reports.owed += 1
                except BufferError:
                    # The queue may be set to less than a batch: what is in it has to leave it first.
                    producer.poll(0.1)
                    continue
                except KafkaException as error:
                    reports.refused.append((letter, error.args[0]))
                break
        deadline = time.monotonic() + SEND_SECONDS_MAX + 5.0
        while reports.owed and not stop.is_set() and time.monotonic() < deadline:
            producer.poll(0.1)
        return reports


@dataclass(slots=True)
class _Reports:
    """What the broker said of copies, and of how many it still has to say something."""

    acknowledged: list[DeadCopy] = field(default_factory=list)
    refused: list[tuple[DeadCopy, KafkaError]] = field(default_factory=list)
    owed: int = 0

    def of(self, letter: DeadCopy) -> Callable[[KafkaError | None, Message], None]:
        """Return what takes the report on this one's copy."""

        def report(error: KafkaError | None, _message: Message) -> None:
            self.owed -= 1
            if error is None:
                self.acknowledged.append(letter)
            else:
                self.refused.append((letter, error))

        return report

    def take_too_large(self) -> list[DeadCopy]:
        """Return those that were refused as too large; they are refused no more."""
        too_large = [letter for letter, error in self.refused if error.code() in _TOO_LARGE]
        self.refused = [(letter, error) for letter, error in self.refused if error.code() not in _TOO_LARGE]
        return too_large

    def add(self, others: _Reports) -> None:
        """Take what was said of others."""
        self.acknowledged += others.acknowledged
        self.refused += others.refused
        self.owed += others.owed


def _made(properties: Mapping[str, str]) -> Producer:
    own: dict[str, Any] = {
        **UNREAD,
        "client.id": "outboxd-dead-letters",
        "acks": "all",
        "enable.idempotence": True,
        # A copy that is not acknowledged is sent again by the next run: it may time out.
        "message.timeout.ms": round(SEND_SECONDS_MAX * 1000),
        "topic.metadata.propagation.max.ms": 3000,
    }
    return Producer({**DEFAULTS, **silent(properties), **own})
