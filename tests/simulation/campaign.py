"""Many seeds on several cores: what each came to, and the sum of it."""

from __future__ import annotations

import multiprocessing
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.simulation.history import Violation
from tests.simulation.world import World

CHUNK = 8
AHEAD = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed's history: what went wrong, None when nothing did, and what there was of each kind."""

    seed: int
    failure: str | None
    counts: Counter[str]


@dataclass(slots=True)
class Tally:
    """The sum of many outcomes."""

    seeds: int = 0
    failing: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.counts += outcome.counts
        if outcome.failure:
            self.failing.append(outcome.seed)

    @property
    def violations(self) -> int:
        return len(self.failing)

    def summary(self) -> dict[str, object]:
        """Return the figures; faults stand apart from what else was counted."""
        faults = {
            name.removeprefix("fault "): n for name, n in sorted(self.counts.items()) if name.startswith("fault ")
        }
        others = {name: n for name, n in sorted(self.counts.items()) if not name.startswith("fault ")}
        return {
            "seeds": self.seeds,
            "violations": self.violations,
            "failing_seeds": sorted(self.failing)[:100],
            "faults": sum(faults.values()),
            "faults_by_kind": faults,
            **others,
        }

    def told(self) -> str:
        """Return the figures for people."""
        summary = self.summary()
        faults = summary.pop("faults_by_kind")
        lines = [f"{name:32} {figure}" for name, figure in summary.items() if figure != []]
        if isinstance(faults, dict):
            lines += [f"  {name:30} {figure}" for name, figure in faults.items()]
        return "\n".join(lines)


def run_seed(seed: int, *, whole: bool = False, plan: Callable[[World], None] | None = None) -> Outcome:
    """Run one seed, with what `plan` adds; a failure tells its history, cut to what concerns it unless `whole`."""
    world = World(seed)
    failure: str | None = None
    if plan is not None:
        plan(world)
    try:
        world.run()
    except Violation as violation:
        about = () if whole else violation.about
        failure = f"seed {seed}: {violation}\n{world.history.told(about, 4_000 if whole else 60)}"
    except Exception:  # noqa: BLE001  # told with its seed
        # A bug of the relay shows as any exception: the seed matters more than the kind.
        failure = f"seed {seed}: {traceback.format_exc()}\n{world.history.told((), 4_000 if whole else 25)}"
    finally:
        world.close()
    return Outcome(seed, failure, world.figures())


def outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    """Run the seeds in so many processes; their outcomes come as they end. Each process is a new interpreter."""
    if jobs <= 1:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for start in range(0, len(seeds), AHEAD):
            # By the thousand: the pool would else draw from an endless range as fast as it can.
            yield from pool.imap_unordered(run_seed, seeds[start : start + AHEAD], chunksize=CHUNK)
        pool.terminate()
