"""`outboxd run` whose transactions wait for `linger.ms` though all their records are there. For tests only.

python -m tests.support.lingering_daemon run -c FILE
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer

from outboxd.cli import main
from outboxd.kafka.transactions import POLL_SECONDS, Transactions


def linger(transactions: Transactions, producer: Producer) -> None:
    """Stand in for `Transactions._poll`: poll, and flush nothing."""
    transactions._serve(producer.poll, POLL_SECONDS)


if __name__ == "__main__":
    Transactions._poll = linger  # type: ignore[assignment, method-assign]
    sys.exit(main())
