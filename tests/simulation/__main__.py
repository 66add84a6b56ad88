"""Run the simulation: `python -m tests.simulation --seed 7`, `--seeds 0..9999`, `--minutes 10`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from itertools import count, islice

from tests.simulation.history import Violation
from tests.simulation.world import World


def tell(seed: int, *, whole: bool = False) -> str | None:
    """Run one seed; return what went wrong, or None."""
    world = World(seed)
    try:
        world.run()
    except Violation as violation:
        about = () if whole else violation.about
        return f"seed {seed}: {violation}\n{world.history.told(about, 400 if whole else 60)}"
    except Exception:  # noqa: BLE001  # told with its seed
        # A bug of the relay shows as any exception: the seed matters more than the kind.
        return f"seed {seed}: {traceback.format_exc()}\n{world.history.told((), 25)}"
    return None


def _seeds(arguments: argparse.Namespace) -> Iterator[int]:
    if arguments.seeds:
        first, last = arguments.seeds.split("..")
        return iter(range(int(first), int(last) + 1))
    return count(arguments.start)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed and tell its whole history if it fails")
    parser.add_argument("--seeds", help="a range, such as 0..9999")
    parser.add_argument("--minutes", type=float, help="run for so long, from --start on")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--cores", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--failures-max", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="tell the whole history, not what concerns the failure")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        failure = tell(arguments.seed, whole=arguments.whole)
        sys.stdout.write(f"{failure or f'seed {arguments.seed}: all invariants hold'}\n")
        return 1 if failure else 0
    deadline = time.monotonic() + arguments.minutes * 60 if arguments.minutes else float("inf")
    began, done, failures = time.monotonic(), 0, 0
    with multiprocessing.Pool(arguments.cores) as pool:
        seeds = _seeds(arguments)
        while time.monotonic() < deadline and failures < arguments.failures_max:
            # By the thousand: the pool would else draw from an endless range as fast as it can.
            batch = list(islice(seeds, 1_000))
            if not batch:
                break
            for failure in pool.imap_unordered(tell, batch, chunksize=8):
                done += 1
                if failure:
                    failures += 1
                    sys.stdout.write(f"{failure}\n\n")
                    sys.stdout.flush()
                if failures >= arguments.failures_max or time.monotonic() > deadline:
                    break
        pool.terminate()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{done} seeds, {failures} failed, {done / seconds:.0f} a second\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
