"""Reloads at any moment, among all other faults: other limits, routes and producers; every invariant holds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from outboxd.policy.exchange.messages import Reconfigured
from tests.simulation.campaign import run_seed
from tests.simulation.world import World

SEEDS = 60


def reloads(world: World, dice: random.Random) -> None:
    """Plan some reloads of daemons that are alive then."""
    scenario = world.scenario

    def reload() -> None:
        alive = [daemon for daemon in world.daemons if daemon.is_alive]
        if not alive:
            return
        daemon = dice.choice(alive)
        # Bounds on rows stay: what is in memory already leaves it in its own time, and the invariant knows no grace.
        limits = replace(
            scenario.limits,
            poll_interval_max_seconds=dice.choice([0.05, 0.4]),
            sweep_interval_seconds=dice.choice([0.5, 4.0]),
        )
        routes = dice.sample(scenario.routes, len(scenario.routes))
        renews = dice.random() < 0.6
        world.history.note(f"! reload of {daemon.name}{', with a new producer' if renews else ''}")
        daemon.post(Reconfigured(limits, routes, scenario.default_route, renews))

    for _ in range(dice.choice([1, 3, 6])):
        world.timeline.at(dice.uniform(0.1, scenario.fault_seconds), reload)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_reload_breaks_no_invariant(seed: int) -> None:
    outcome = run_seed(seed, plan=lambda world: reloads(world, random.Random(seed)))
    assert outcome.failure is None, outcome.failure
