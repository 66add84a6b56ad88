"""`outboxd run` whose recovery finds no progress records: what exactly-once would be without them. For tests only.

python -m tests.support.forgetful_daemon run -c FILE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from outboxd.cli import main
from outboxd.kafka.transactional import shard_clients
from outboxd.kafka.transactional.progress import ProgressRecord


def find_nothing(*_: object) -> Sequence[ProgressRecord]:
    """Stand in for `read_above`."""
    return []


if __name__ == "__main__":
    shard_clients.read_above = find_nothing  # type: ignore[attr-defined, assignment]  # the part that is taken away
    sys.exit(main())
