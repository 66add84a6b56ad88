"""In which order workers take the files of tests: what takes longest first, so that nobody ends with a long file alone.

By itself pytest-xdist begins with the files of the most tests, and a file of three tests that take minutes comes last.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LONGEST = (
    "integration/test_relay_life.py",
    "integration/test_plans.py",
    "simulation/test_simulation.py",
    "simulation/mutations/test_mutations.py",
    "integration/test_topic_made_again.py",
    "integration/test_exactly_once.py",
    "integration/test_three_brokers.py",
    "integration/test_crash_loop.py",
    "integration/test_relay_delivery.py",
    "integration/test_unsettled_in_transactions.py",
    "integration/test_relay_error_codes.py",
    "integration/test_documents.py",
    "integration/test_bench.py",
    "integration/test_producer_fenced.py",
    "integration/test_dead_command.py",
    "integration/test_operator_commands.py",
    "unit/test_cli.py",
)
"""The files that take longest. Of the first ones one wants a broker: the first broker that is ever started here
archives its classes, for which all others wait.
"""
ROOMS = ("integration", "simulation", "contract", "unit")
"""The order of all others: those of the first room take longest."""

_TESTS = Path(__file__).parents[1]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn(item.path.relative_to(_TESTS).as_posix()))


def turn(file: str) -> tuple[int, int]:
    """When a file's turn is; files with the same turn stay as they were collected."""
    room = file.partition("/")[0]
    return (
        LONGEST.index(file) if file in LONGEST else len(LONGEST),
        ROOMS.index(room) if room in ROOMS else len(ROOMS),
    )
