"""A spare producer: one beside the shared one, made when it is first needed, since most daemons never need it."""

from __future__ import annotations

from collections.abc import Callable

from outboxd.kafka.client.former_producers import serve_last_reports
from outboxd.kafka.client.producer_maker import NO_PRODUCER, AnyProducer


class SpareProducer:
    """Holds one producer at a time, or none yet. It belongs to the relay's thread."""

    def __init__(self, make_producer: Callable[[], AnyProducer]) -> None:
        """`make_producer` makes one, or returns the stand-in."""
        self._make_producer = make_producer
        self.present: AnyProducer | None = None
        """The one that is there, None where none was needed since the last was let go of."""

    def needed(self) -> AnyProducer:
        """Return the producer, made now where there is none."""
        if self.present is None or self.present is NO_PRODUCER:
            self.present = self._make_producer()
        return self.present

    def purge(self) -> None:
        """Drop what was not sent yet, and stop waiting for what was."""
        if self.present is not None:
            self.present.purge(in_queue=True, in_flight=True, blocking=False)

    def drop(self) -> list[AnyProducer]:
        """Let go of the producer, so that another is made when one is needed; return it for its end, if there was one.
        Its last reports are in the inbox then.
        """
        former = [] if self.present is None else [self.present]
        for producer in former:
            serve_last_reports(producer)
        self.present = None
        return former

    def take_credentials(self, name: str, password: str) -> None:
        """Name and password of SASL hold from the next connection on. May be called on any thread."""
        producer = self.present
        if producer is not None:
            producer.set_sasl_credentials(name, password)
