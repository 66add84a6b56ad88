"""Fixtures for all tests come as plugins, one module a server; so does the order of the files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

# No test fails for the time that it takes: the machine may have other work.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with Ctrl-C ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.longest_first",
    "tests.support.postgres_fixtures",
    "tests.support.housekeeping_fixtures",
    "tests.support.kafka_fixtures",
    "tests.support.notify_socket",
    "tests.support.rig",
    "tests.support.forgetful_server",
]


SHRINKING_SECONDS = 420
"""Hypothesis takes up to five minutes to make a failing example small: without that time it would never be told."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of Hypothesis the time that it takes where one fails."""
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.timeout(SHRINKING_SECONDS))


@pytest.fixture(autouse=True, scope="session")
def _none_of_this_machines_configuration() -> Iterator[None]:
    """outboxd may be installed and configured here: the tests neither read that nor depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outboxd.config.loading.DEFAULT_PATH", Path("/nonexistent/outboxd.toml"))
        for name in [
            name for name in os.environ if name.startswith("OUTBOXD_") and not name.startswith("OUTBOXD_TEST_")
        ]:
            patch.delenv(name)
        yield
