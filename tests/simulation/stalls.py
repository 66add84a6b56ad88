"""Threads of a daemon that stand still for a while as its others go on: the relay's, whose mail piles up meanwhile, or
the lease's, which renews nothing. A whole process that is frozen is among the other faults.

By dice of their own, so that whatever else happens in a seed stays as it is.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World

RELAY_SHARE = 0.7
"""Of the stalls so many are the relay's."""


class Stalls:
    """Lets those of one seed happen at their times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = dice = random.Random(f"stalls {world.scenario.seed}")
        if not world.scenario.has_stalls:
            return
        for _ in range(dice.choice([1, 3, 8])):
            world.timeline.at(dice.uniform(0.05, world.scenario.fault_seconds), self._stall)

    def _stall(self) -> None:
        world, dice = self._world, self._dice
        alive = [daemon for daemon in world.daemons if daemon.is_alive]
        lasts = dice.choice([0.05, 0.3, 1.0, 1.5 * world.scenario.lease_ttl])
        if not alive or world.is_healed:
            return
        daemon = dice.choice(alive)
        thread = "relay" if dice.random() < RELAY_SHARE else "lease"
        world.count(f"fault stalled {thread}")
        world.history.note(f"! the {thread}'s thread of {daemon.name} stands still for {lasts:g} s")
        until = world.timeline.now + lasts
        if thread == "relay":
            daemon.stalled_until = until
        else:
            daemon.lease.stalled_until = until
