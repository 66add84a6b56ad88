"""Former producers: how one that another replaces is let go.

The client keeps a record until its delivery report is served, for ever where it never is, though the producer itself is
gone: ten thousand records of 1 kB that a rebuild left unreported cost 12 MB, each time (measured).
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaException

from outboxd.kafka.client.producer_maker import AnyProducer

REPORTS_SECONDS_MAX: Final = 0.1
"""After so long no more reports are waited for. A purge's come within a millisecond, and cost 3 µs a record."""
POLL_SECONDS: Final = 0.005


def serve_last_reports(producer: AnyProducer) -> None:
    """Drop what the producer has, and serve the reports of that, so that the client lets go of the records.

    The reports land where all of this producer's do, before this returns. They are of no interest any more: whoever
    shares that inbox with another producer has to empty it before that one's reports come.
    """
    deadline = time.monotonic() + REPORTS_SECONDS_MAX
    while len(producer) and time.monotonic() < deadline:
        # Each time, since a batch that a broker did not answer comes back to the queue.
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        # What is fatal is raised once more, and nobody asks for the cause again.
        with suppress(KafkaException, SystemError):
            producer.poll(POLL_SECONDS)


def destroy(former: list[Any]) -> None:
    """Let go of producers that nobody else knows any more, which waits for their threads: on a thread of its own."""
    try:
        threading.Thread(target=former.clear, name="former-producer", daemon=True).start()
    except RuntimeError:
        # No thread is to be had; these give theirs back.
        former.clear()
