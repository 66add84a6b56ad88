"""Each deliberate bug is found by the simulation within its number of seeds."""

from __future__ import annotations

from itertools import count, islice

import pytest

from tests.simulation.campaign import run_seed
from tests.simulation.mutations.bugs import BUGS
from tests.simulation.mutations.patching import Mutation, applied
from tests.simulation.scenario import scenario


def seeds_until_found(mutation: Mutation) -> int | None:
    """Return how many seeds it took to find the bug, None when none of its number does."""
    every = (seed for seed in count(mutation.first_seed) if mutation.where(scenario(seed)))
    with applied(mutation):
        seeds = islice(every, mutation.seeds_max)
        return next((place for place, seed in enumerate(seeds, 1) if run_seed(seed).failure is not None), None)


@pytest.mark.parametrize("mutation", BUGS, ids=lambda mutation: mutation.title)
def test_the_simulation_finds_the_bug(mutation: Mutation) -> None:
    assert seeds_until_found(mutation) is not None
