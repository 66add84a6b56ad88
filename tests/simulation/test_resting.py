"""The loop rests while nothing can be done: an outage with full memory costs no processor."""

from __future__ import annotations

from tests.simulation.daemon import Daemon
from tests.simulation.world import STEPS_MAX, World

OUTAGE_SECONDS = 60.0
WATCHED_SECONDS = 5.0


def rests_in_an_outage(seed: int) -> list[float]:
    """Fill an owner's memory while no broker answers; return how long it meant to rest after each turn since."""
    world = World(seed)
    world.broker.down_until = OUTAGE_SECONDS
    world.timeline.run_until(world.scenario.fault_seconds, STEPS_MAX)
    rests: dict[tuple[str, int], float] = {}

    def watch(daemon: Daemon) -> None:
        poll, publisher = daemon.publisher.poll, daemon.publisher

        def note(timeout_seconds: float) -> None:
            if not daemon.relay.state.has_ready:
                # The last poll of a turn is its rest.
                rests[daemon.name, daemon.relay.turns] = daemon.relay.next_deadline - world.timeline.now
            poll(timeout_seconds)

        publisher.poll = note  # type: ignore[method-assign]

    for daemon in world.daemons:
        if daemon.is_alive and len(daemon.relay.state.ledger) * 2 > world.scenario.limits.max_in_flight_rows:
            watch(daemon)
    world.timeline.run_until(world.timeline.now + WATCHED_SECONDS, STEPS_MAX)
    return list(rests.values())


def test_the_loop_rests_while_no_broker_answers_and_memory_is_full() -> None:
    histories = [rests for rests in map(rests_in_an_outage, range(30)) if rests]

    assert len(histories) >= 5
    assert all(sum(rest <= 0.0 for rest in rests) <= len(rests) / 10 for rests in histories)
