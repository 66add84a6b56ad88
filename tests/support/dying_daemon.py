"""`outboxd run` in which a bug ends a thread once rows are settled. For tests only.

python -m tests.support.dying_daemon run -c FILE --dies THREAD, which is `lease` or `relay`.
"""

from __future__ import annotations

import sys

from outboxd.cli import main
from outboxd.postgres.lease.leases import LeaseKeeper
from outboxd.relay.settle.writing import Writing


def die(*_: object) -> None:
    """Stand in for a method that has a bug."""
    raise LookupError("a planted bug")


if __name__ == "__main__":
    thread = sys.argv.pop()
    sys.argv.remove("--dies")
    if thread == "lease":
        step = LeaseKeeper._step

        def step_once_owned(self: LeaseKeeper) -> float:
            if self._held is not None:
                die()
            return step(self)

        LeaseKeeper._step = step_once_owned  # type: ignore[method-assign]
    else:
        Writing.on_settled = die  # type: ignore[assignment, method-assign]
    sys.exit(main())
