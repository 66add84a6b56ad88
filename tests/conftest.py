"""Fixtures for all tests come as plugins, one module a server."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with Ctrl-C ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.postgres_fixtures",
    "tests.support.housekeeping_fixtures",
    "tests.support.kafka_fixtures",
    "tests.support.notify_socket",
    "tests.support.rig",
    "tests.support.forgetful_server",
]
