"""Stops close to a producer's end: exactly-once delivery may only begin on an outbox of which nothing is in doubt."""

from __future__ import annotations

import random
from functools import partial
from itertools import count, islice

from outboxd.policy.exchange.messages import Reconfigured
from outboxd.relay.ownership import RENEWAL_SECONDS_MAX
from tests.simulation.campaign import run_seed
from tests.simulation.database import Copy
from tests.simulation.scenario import scenario
from tests.simulation.world import World

SEEDS = list(islice((seed for seed in count() if not scenario(seed).exactly_once), 60))
SECONDS_MAX = 0.05
OUTAGE_SECONDS = RENEWAL_SECONDS_MAX + 2.0


def stops(world: World, dice: random.Random) -> None:
    """Plan some stops, each a moment before or after the producer fails, or during an outage that a renewal spans."""

    def fail_and_stop() -> None:
        for daemon in [daemon for daemon in world.daemons if daemon.is_alive]:
            world.timeline.after(dice.uniform(0.0, SECONDS_MAX), daemon.publisher.fail)
            world.timeline.after(dice.uniform(0.0, SECONDS_MAX), daemon.stop)

    def renew_and_stop() -> None:
        world.broker.down_until = max(world.broker.down_until, world.timeline.now + OUTAGE_SECONDS)
        limits, routes = world.scenario.limits, world.scenario.routes
        for daemon in [daemon for daemon in world.daemons if daemon.is_alive]:
            daemon.post(Reconfigured(limits, routes, world.scenario.default_route, renews=True))
            world.timeline.after(RENEWAL_SECONDS_MAX + dice.uniform(0.0, SECONDS_MAX), daemon.stop)

    for _ in range(dice.choice([2, 4, 6])):
        world.timeline.at(dice.uniform(0.1, world.scenario.fault_seconds), fail_and_stop)
    if dice.random() < 0.5:
        world.timeline.at(dice.uniform(0.1, world.scenario.fault_seconds), renew_and_stop)


def losing_failovers(world: World, dice: random.Random) -> None:
    """Plan some failovers that lose the last moments, the lease among them, and stop daemons not long after each."""
    db, timeline = world.db, world.timeline

    def lose(copy: Copy) -> None:
        if not world.is_healed:
            db.fail_over(copy, ids_skipped=0)
            for daemon in [daemon for daemon in world.daemons if daemon.is_alive]:
                timeline.after(dice.uniform(0.0, 2 * world.scenario.lease_ttl), daemon.stop)

    def begin() -> None:
        timeline.after(dice.uniform(0.1, 1.0), partial(lose, db.copied()))

    for _ in range(4):
        timeline.at(dice.uniform(0.0, world.scenario.fault_seconds), begin)


def test_an_outbox_is_not_given_up_as_drained_while_a_row_is_in_doubt() -> None:
    drained = 0
    for seed in SEEDS:
        outcome = run_seed(seed, plan=lambda world, seed=seed: stops(world, random.Random(seed)))  # type: ignore[misc]  # bound here
        assert outcome.failure is None, outcome.failure
        drained += outcome.counts["leases given up as drained"]

    # Who never says so proves nothing.
    assert drained > len(SEEDS) // 4


def test_an_owner_answers_for_its_own_lease_though_a_failover_has_its_token_given_again() -> None:
    drained = 0
    for seed in SEEDS[:45]:
        outcome = run_seed(seed, plan=lambda world, seed=seed: losing_failovers(world, random.Random(seed)))  # type: ignore[misc]  # bound here
        assert outcome.failure is None, outcome.failure
        drained += outcome.counts["leases given up as drained"]

    assert drained > 0
