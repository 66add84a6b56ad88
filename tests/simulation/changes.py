"""What people change around a daemon that runs: its configuration, pauses of many topics by one pattern, topics that
are deleted and made again; and notifications, which come or stay away.

By dice of their own, so that whatever else happens in a seed stays as it is.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from outboxd.policy.blame.routes import Confirm, Route
from outboxd.policy.exchange.messages import Listening, Reconfigured, TopicsChanged, Woken

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World

PATTERNS = ["*.a", "held.*", "[!o]*", "?*s", "*"]
FOUND_SECONDS = (0.5, 3.0)
"""So long does it take until a daemon hears that a topic is another one."""


class Changes:
    """Lets those of one seed happen at their times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = dice = random.Random(f"changes {world.scenario.seed}")
        if not world.scenario.has_changes:
            return
        kinds = [self._reload, self._reload, self._pause, self._notifications, self._remake]
        for _ in range(dice.choice([1, 3, 8])):
            world.timeline.at(dice.uniform(0.05, world.scenario.fault_seconds), dice.choice(kinds))

    def _alive(self) -> list[Daemon]:
        return [daemon for daemon in self._world.daemons if daemon.is_alive]

    def _reload(self) -> None:
        """One daemon has other limits, policies and perhaps another producer than the others from now on."""
        world, dice, alive = self._world, self._dice, self._alive()
        if not alive:
            return
        daemon, scenario = dice.choice(alive), world.scenario
        # Bounds on rows stay: what is in memory already leaves it in its own time, and the invariant knows no grace.
        limits = replace(
            scenario.limits,
            poll_interval_max_seconds=dice.choice([0.05, 0.4]),
            sweep_interval_seconds=dice.choice([0.5, 4.0]),
            stall_seconds=dice.choice([0.4, 1.0, 10.0]),
        )
        renews = dice.random() < 0.6
        routes = [self._changed(route, renews=renews) for route in scenario.routes]
        told = ", with a new producer" if renews else ""
        world.count("fault reload")
        world.history.note(f"! reload of {daemon.name}{told}: {[route.topic_glob for route in routes]}")
        daemon.post(Reconfigured(limits, routes, scenario.default_route, renews))

    def _changed(self, route: Route, *, renews: bool) -> Route:
        dice = self._dice
        retry = replace(route.retry, max_attempts=dice.choice([3, 5, 8]))
        # What is sent without reports is known by its topic's name.
        confirm = route.confirm
        if renews and confirm is not Confirm.NONE:
            confirm = dice.choice([Confirm.CALLBACK, Confirm.EACH])
        return replace(route, retry=retry, confirm=confirm, holds_key_on_death=dice.random() < 0.5)

    def _pause(self) -> None:
        """Many topics are paused by one pattern, and go on by it; what a storm has paused may go on with them."""
        world, dice = self._world, self._dice
        pattern = dice.choice(PATTERNS)
        world.count("fault pause by pattern")
        world.history.note(f"! an operator pauses {pattern}")
        world.db.control[pattern] = (world.db.now, "an operator")
        resumed = [pattern] if dice.random() < 0.5 else [pattern, *world.scenario.topics]
        world.timeline.after(dice.uniform(0.05, 3.0), lambda: self._resume(resumed))

    def _resume(self, patterns: list[str]) -> None:
        for pattern in patterns:
            if self._world.db.control.pop(pattern, None) is not None:
                self._world.history.note(f"! an operator resumes {pattern}")

    def _notifications(self) -> None:
        """A daemon hears that notifications come, or do not, and some that tell of nothing; none tells of a row."""
        world, dice, alive = self._world, self._dice, self._alive()
        if not alive:
            return
        daemon, comes = dice.choice(alive), dice.random() < 0.7
        world.count("fault notifications")
        world.history.note(f"! notifications {'come' if comes else 'stay away'}: {daemon.name}")
        daemon.post(Listening(active=comes))
        for _ in range(dice.choice([0, 1, 5])):
            world.timeline.after(dice.uniform(0.0, 1.0), lambda: daemon.post(Woken()))

    def _remake(self) -> None:
        """A topic is deleted and made again: to the producers that know it of before it stands still, until their
        daemons hear of it.
        """
        world, dice = self._world, self._dice
        topic = dice.choice(list(world.broker.topics.values()))
        topic.makings += 1
        world.count("fault topic remade")
        world.history.note(f"! {topic.name} is made again")
        for daemon in self._alive():
            world.timeline.after(dice.uniform(*FOUND_SECONDS), lambda daemon=daemon: self._found(daemon))  # type: ignore[misc]  # bound here

    def _found(self, daemon: Daemon) -> None:
        self._world.history.note(f"! {daemon.name} hears of a topic that was made again")
        daemon.post(TopicsChanged("a topic was made again"))
