"""Fixtures for all tests come as plugins, one module a server."""

from __future__ import annotations

pytest_plugins = [
    "tests.support.postgres_fixtures",
    "tests.support.kafka_fixtures",
    "tests.support.notify_socket",
    "tests.support.rig",
]
