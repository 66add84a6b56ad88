"""Five hundred histories of the real relay, each with at least one crash and one fault."""

from __future__ import annotations

import os

import pytest

from tests.simulation.campaign import run_seed
from tests.simulation.scenario import scenario
from tests.simulation.world import World

SEEDS = int(os.environ.get("OUTBOXD_TEST_SEEDS", "500"))
CHUNK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_history_breaks_an_invariant(first: int) -> None:
    failures = [failure for seed in range(first, first + CHUNK) if (failure := run_seed(seed).failure) is not None]

    assert not failures, failures[0]


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(4524, id="refused rows among those of a storm"),
        pytest.param(1280, id="a storm in a topic that goes one row at a time"),
    ],
)
def test_a_history_that_once_broke_an_invariant_breaks_none(seed: int) -> None:
    assert run_seed(seed).failure is None


def test_every_history_has_a_crash_and_a_fault() -> None:
    chosen = [scenario(seed) for seed in range(SEEDS)]

    assert all(one.crashes >= 1 and one.faults >= 1 for one in chosen)


def test_a_seed_tells_the_same_history_each_time() -> None:
    histories = []
    for _ in range(2):
        world = World(11)
        world.run()
        histories.append(world.history.told((), 10_000))

    assert histories[0] == histories[1]
    assert "kill -9" in histories[0] or "SIGTERM" in histories[0]
