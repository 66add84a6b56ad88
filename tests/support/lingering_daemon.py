"""`outboxd run` whose transactions wait for `linger.ms` though all their records are there. For tests only.

python -m tests.support.lingering_daemon run -c FILE
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer

from outboxd.cli import main
from outboxd.kafka.transaction_client import POLL_SECONDS, TransactionClient


def linger(client: TransactionClient, producer: Producer, seconds: float = POLL_SECONDS) -> None:
    """Stand in for `TransactionClient._poll`: poll, and flush nothing."""
    client._serve(producer.poll, seconds)


if __name__ == "__main__":
    TransactionClient._poll = linger  # type: ignore[assignment, method-assign]
    sys.exit(main())
