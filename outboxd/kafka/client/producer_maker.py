"""The maker of plain producers, and what these tell of the cluster.

Making one reads the files that the properties name, and starts threads. Neither need be possible at any moment: while
certificates are changed a file is missing for a while. So the relay goes on with a stand-in then, as it does while no
broker answers, and a producer is made a little later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, NoReturn

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.errors import ThreadsError
from outboxd.kafka.client.client_config import CLIENT_LOGGER, is_out_of_threads
from outboxd.kafka.client.cluster_failure import ClusterFailure

PAUSE_SECONDS: Final = 1.0
"""So long after one could not be made the next is tried."""


class NoProducer:
    """Stands in for a producer that cannot be made: its queue is full, and no broker answers."""

    def produce(self, *_: object, **__: object) -> None:
        """Take nothing. Raises BufferError."""
        raise BufferError

    def poll(self, timeout_seconds: float) -> int:
        """Wait, as there are no reports."""
        time.sleep(timeout_seconds)
        return 0

    flush = poll

    def purge(self, **_: object) -> None:
        """Drop nothing."""

    def __len__(self) -> int:
        return 0

    def list_topics(self, *_: object, **__: object) -> NoReturn:
        """Raise KafkaException, as where no broker answers; at once."""
        raise KafkaException(KafkaError(KafkaError._STATE, "there is no producer"))

    def set_sasl_credentials(self, name: str, password: str) -> None:
        """Do nothing: the next producer is made with them."""


NO_PRODUCER: Final = NoProducer()
AnyProducer = Producer | NoProducer


class ProducerMaker:
    """Makes one publisher's producers, on the relay's thread."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self.failure = ClusterFailure()
        """Why no broker answers, or what keeps a producer from being made."""
        self._again_at: float | None = None

    def make(self, config: Mapping[str, object]) -> Producer:
        """Return a producer of this configuration. Raises KafkaException where it cannot be made."""
        # What the client says of itself comes with `poll`, by the standard logging, instead of on standard error.
        return Producer({**config, "error_cb": self.failure.note, "logger": self.failure})

    def try_to_make(self, config: Mapping[str, object]) -> AnyProducer:
        """Return a producer of this configuration; the stand-in where none can be made now, or could a moment ago."""
        now = time.monotonic()
        if self._again_at is not None and now < self._again_at:
            return NO_PRODUCER
        try:
            producer = self.make(config)
        except KafkaException as error:
            self._again_at = now + PAUSE_SECONDS
            words = error.args[0].str()
            remedy = "look at the files that [kafka] names, and at their rights"
            told = (
                str(ThreadsError(words)) if is_out_of_threads(error) else f"no producer can be made: {words}; {remedy}"
            )
            self.failure.tell(told)
            CLIENT_LOGGER.warning(told)
            return NO_PRODUCER
        if self._again_at is not None:
            self._again_at = None
            self.failure.clear()
        return producer
