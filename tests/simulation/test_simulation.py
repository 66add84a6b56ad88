"""Thousands of histories of the real relay, each with at least one crash and one fault, and no invariant broken."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from tests.simulation.campaign import Tally, outcomes, run_seed
from tests.simulation.scenario import scenario
from tests.simulation.world import World

SEEDS = int(os.environ.get("OUTBOXD_TEST_SEEDS", "1000"))
CHUNK = 250
"""So many are bound by one time limit, on whatever machine."""
FAULT_KINDS_MIN = 15
FORGETFUL_SEEDS = 100


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_history_breaks_an_invariant(first: int) -> None:
    tally, told = Tally(), []
    for outcome in outcomes(range(first, first + CHUNK), multiprocessing.cpu_count()):
        tally.add(outcome)
        told += [outcome.failure] if outcome.failure else []

    assert not told, f"{len(told)} of {CHUNK} seeds: {sorted(tally.failing)[:20]}\n{told[0]}"
    assert tally.seeds == CHUNK
    # What never happens is never survived.
    assert sum(name.startswith("fault ") for name in tally.counts) >= FAULT_KINDS_MIN, tally.told()
    assert tally.counts["duplicates at-least-once"] > 0
    assert tally.counts["transactions committed"] > 0
    assert tally.counts["suspects tried apart"] > 0


def test_no_invariant_is_broken_where_topics_are_forgotten_as_soon_as_nothing_is_left_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outboxd.relay.memory.lanes.LANES_KEPT_MAX", 0)
    monkeypatch.setattr("outboxd.relay.memory.lanes.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("outboxd.relay.fetch.forgetting.NEIGHBOURS_SECONDS", 0.0)
    tally, told = Tally(), []
    for seed in range(FORGETFUL_SEEDS):
        outcome = run_seed(seed)
        tally.add(outcome)
        told += [outcome.failure] if outcome.failure else []

    assert not told, f"{sorted(tally.failing)[:20]}\n{told[0]}"


def test_every_history_has_a_crash_and_a_fault() -> None:
    chosen = [scenario(seed) for seed in range(SEEDS)]

    assert all(one.crashes >= 1 and one.faults >= 1 for one in chosen)


def test_a_seed_tells_the_same_history_each_time() -> None:
    for exactly_once in (False, True):
        seed = next(seed for seed in range(1_000) if scenario(seed).exactly_once is exactly_once)
        histories = []
        for _ in range(2):
            world = World(seed)
            world.run()
            world.close()
            histories.append(world.history.told((), 10_000))

        assert histories[0] == histories[1]
        assert "all faults end" in histories[0]
