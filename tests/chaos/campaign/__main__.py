"""python -m tests.chaos.campaign --minutes 60 --seed 1 --rows 5000000 --log DIRECTORY [--delivery exactly-once]"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.chaos.campaign.campaign import Plan, run
from tests.chaos.campaign.faults import MENU
from tests.chaos.campaign.load import KEYS_A_WRITER


def main() -> int:
    """Run a campaign; 1 when a guarantee was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=1, help="draws the faults and their details")
    parser.add_argument("--rows", type=int, default=0, help="rows to write; 0: 1,400 a second")
    parser.add_argument("--keys", type=int, default=KEYS_A_WRITER, help="keys of each writer; of few, rows go together")
    parser.add_argument("--every", type=float, default=4.0, help="a fault every so many seconds on average")
    parser.add_argument("--delivery", choices=("at-least-once", "exactly-once"), default="at-least-once")
    parser.add_argument("--only", default="", help="names of kinds, apart by commas")
    parser.add_argument("--log", type=Path, required=True, help="directory of the log and the summary")
    asked = parser.parse_args()
    only = [name for name in asked.only.split(",") if name]
    unknown = set(only) - {kind.name for kind in MENU}
    if unknown:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(kind.name for kind in MENU)}")
    menu = [kind for kind in MENU if not only or kind.name in only]
    rows = asked.rows or round(1_400 * 60 * asked.minutes)
    plan = Plan(asked.minutes, asked.seed, rows, asked.delivery, asked.every, asked.log, menu, keys=asked.keys)
    ending = threading.Event()
    # Ends the faults and the load, and gives a verdict on what there was; Ctrl+C gives none.
    signal.signal(signal.SIGTERM, lambda _number, _frame: ending.set())
    result = run(plan, ending)
    print(result.text)  # noqa: T201 - what it is for
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
