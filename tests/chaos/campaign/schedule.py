"""When which fault happens: drawn from a seed, started one after the other, overlapping wherever their resources allow.

The seed decides the order of the kinds and each fault's own dice; how long a fault takes is the machine's matter, and
one whose resources are taken waits while those behind it go first.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psycopg
from confluent_kafka import KafkaException

from tests.chaos.campaign.faults.kind import Kind, Seen
from tests.chaos.campaign.healing import heal
from tests.chaos.campaign.log import CampaignLog, FaultLine
from tests.chaos.campaign.stage import Happening, NotObservedError, Stage

AHEAD = 40
"""How many faults are drawn ahead, to find one whose resources are free."""
RUNNING_MAX = 9
_TURN_SECONDS = 0.05


def drawn(menu: Sequence[Kind], seed: int) -> Iterator[tuple[int, Kind, random.Random]]:
    """Yield numbered faults for ever: bag after bag, in each of which every kind stands as often as it weighs."""
    dice = random.Random(seed)
    number = 0
    while True:
        bag = [kind for kind in menu for _ in range(int(kind.weight) + (dice.random() < kind.weight % 1))]
        dice.shuffle(bag)
        for kind in bag:
            number += 1
            yield number, kind, random.Random(f"{seed}-{number}")


class Schedule:
    """Starts faults, one every `every_seconds` on average."""

    def __init__(
        self, stage: Stage, log: CampaignLog, menu: Sequence[Kind], *, seed: int, every_seconds: float
    ) -> None:
        self._stage, self._log = stage, log
        self._drawn = drawn(menu, seed)
        self._dice = random.Random(seed + 1)
        self._every_seconds = every_seconds
        self._waiting: list[tuple[int, Kind, random.Random]] = []
        self._taken: set[str] = set()
        self._running: dict[int, Kind] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    @property
    def running(self) -> list[str]:
        """The names of the faults that happen now."""
        with self._lock:
            return [kind.name for kind in self._running.values()]

    def run(self, until: float, is_over: Callable[[], bool]) -> None:
        """Start faults until then (monotonic), or until it is over."""
        due = time.monotonic()
        while time.monotonic() < until and not is_over():
            time.sleep(_TURN_SECONDS)
            if time.monotonic() >= due and self._start_one():
                due = time.monotonic() + self._every_seconds * self._dice.uniform(0.3, 1.7)

    def calm(self, seconds: float = 150.0) -> float:
        """Wait until nothing happens any more, heal everything; return when (epoch) the last fault ended."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(_TURN_SECONDS)
        heal(self._stage)
        return time.time()

    def _start_one(self) -> bool:
        while len(self._waiting) < AHEAD:
            self._waiting.append(next(self._drawn))
        with self._lock:
            if len(self._running) >= RUNNING_MAX:
                return False
            found = next((each for each in self._waiting if not each[1].takes & self._taken), None)
            if found is None:
                return False
            self._waiting.remove(found)
            self._taken |= found[1].takes
            self._running[found[0]] = found[1]
        threading.Thread(target=self._perform, args=found, name=f"fault-{found[0]}", daemon=True).start()
        return True

    def _perform(self, number: int, kind: Kind, dice: random.Random) -> None:
        stage, began_at = self._stage, time.time()
        happening = Happening(kind.name, kind.hinders_lease, kind.hinders_delivery, began_at)
        stage.happenings.append(happening)
        seen, why = self._attempt(kind, dice)
        ended_at = time.time()
        stage.happenings[stage.happenings.index(happening)] = Happening(
            kind.name, kind.hinders_lease, kind.hinders_delivery, began_at, ended_at
        )
        overlapped = sorted({each.kind for each in stage.overlapping(began_at, ended_at)} - {kind.name})
        self._log.fault(FaultLine(number, began_at, ended_at - began_at, kind.name, seen, why, overlapped))
        with self._lock:
            self._taken -= kind.takes
            del self._running[number]

    def _attempt(self, kind: Kind, dice: random.Random) -> tuple[Seen | None, str]:
        """Do it; None and a reason where no effect was seen."""
        try:
            return kind.run(self._stage, dice), ""
        except NotObservedError as unseen:
            return None, str(unseen)
        except (psycopg.Error, KafkaException, OSError, RuntimeError) as hindered:
            # Faults hinder each other: a server that one of them needs is another one's victim.
            reason = f"{type(hindered).__name__}: {str(hindered).splitlines()[0] if str(hindered) else ''}"
        except Exception as mistake:  # noqa: BLE001 - a mistake of the campaign must not leave things broken
            reason = f"mistake: {type(mistake).__name__}: {mistake}"
        with contextlib.suppress(Exception):
            heal(self._stage, kind.takes)
        return None, reason
