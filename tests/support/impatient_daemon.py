"""`outboxd run` that takes a topic for stuck after two and a half seconds. For tests only.

python -m tests.support.impatient_daemon run -c FILE
"""

from __future__ import annotations

import sys
from dataclasses import replace

from outboxd.cli import main
from outboxd.config import Settings
from outboxd.daemon import wiring
from outboxd.daemon.relay_configuration import relay_limits
from outboxd.policy.fetch.limits import RelayLimits

STALL_SECONDS = 2.5


def impatient_limits(settings: Settings) -> RelayLimits:
    """Return the limits of the configuration, with less patience."""
    return replace(relay_limits(settings), stall_seconds=STALL_SECONDS)


if __name__ == "__main__":
    wiring.relay_limits = impatient_limits  # type: ignore[attr-defined]  # not its own, but it is where it is looked up
    sys.exit(main())
