"""`outboxd run` whose transactions wait for `linger.ms` though all their records are there. For tests only.

python -m tests.support.lingering_daemon run -c FILE
"""

from __future__ import annotations

import sys

from outboxd.cli import main
from outboxd.kafka.transactional.transactional_producer import POLL_SECONDS, TransactionalProducer


def linger(producer: TransactionalProducer, seconds: float = POLL_SECONDS) -> None:
    """Stand in for `TransactionalProducer.flush`: poll, and flush nothing."""
    producer._serve(producer.client.poll, seconds)


if __name__ == "__main__":
    TransactionalProducer.flush = linger  # type: ignore[assignment, method-assign]
    sys.exit(main())
