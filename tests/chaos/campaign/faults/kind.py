"""What a kind of fault is: a name, what it takes for itself, and a function that does it and tells what it saw."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.campaign.stage import Stage

Seen = dict[str, Any]
"""The observed effect, for the log."""
Run = Callable[[Stage, random.Random], Seen]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: as in the log.
        takes: resources that no two faults have at once; faults of different resources overlap.
        run: does it, heals it, and returns the observed effect, or raises `NotObservedError`.
        weight: how often, in relation to the others.
        hinders_lease: whether it may keep a successor from the lease, so that a takeover meanwhile is no measure.
        hinders_delivery: whether records may not reach the brokers meanwhile, so that a drain takes its time.
    """

    name: str
    takes: frozenset[str]
    run: Run
    weight: float = 1.0
    hinders_lease: bool = False
    hinders_delivery: bool = False


def kinds(
    takes: str, *runs: Run, weight: float = 1.0, hinders_lease: bool = False, hinders_delivery: bool = False
) -> tuple[Kind, ...]:
    """Kinds named after their functions; `takes` are resources, apart by blanks, or `own` for one of its own."""
    made: list[Kind] = []
    for run in runs:
        name = getattr(run, "__name__", "?").replace("_", "-")
        resources = frozenset(name if resource == "own" else resource for resource in takes.split())
        made.append(Kind(name, resources, run, weight, hinders_lease, hinders_delivery))
    return tuple(made)
