"""Each deliberate bug is found by the simulation within its number of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.campaign import run_seed
from tests.simulation.mutations.bugs import BUGS
from tests.simulation.mutations.patching import Mutation, applied


def first_failing_seed(mutation: Mutation) -> int | None:
    """Return the first seed that finds the bug, None when none of its number does."""
    with applied(mutation):
        return next((seed for seed in range(mutation.seeds_max) if run_seed(seed).failure is not None), None)


@pytest.mark.parametrize("mutation", BUGS, ids=lambda mutation: mutation.title)
def test_the_simulation_finds_the_bug(mutation: Mutation) -> None:
    assert first_failing_seed(mutation) is not None
