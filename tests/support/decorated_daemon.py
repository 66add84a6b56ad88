"""What the launchers of daemons with a decorated broker's port have in common."""

from __future__ import annotations

import sys
from pathlib import Path

from outboxd.config import load
from outboxd.daemon.daemon import Daemon
from outboxd.daemon.wiring import DecoratePublisher


def run_decorated(decorate: DecoratePublisher) -> int:
    """Run the daemon that the command line tells of, `run -c FILE [--until-empty]`; return its exit code."""
    config = Path(sys.argv[sys.argv.index("-c") + 1])
    settings = load(config, flags={}, env={})
    return Daemon(settings, until_empty="--until-empty" in sys.argv, decorate_publisher=decorate).run()
