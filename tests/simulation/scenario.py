"""What one seed chooses before anything happens: sizes, limits, routes, how often what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from outboxd.policy.blame.routes import Confirm, RetryLimits, Route
from outboxd.policy.rows.records import FIRST_ID, ID_MAX
from outboxd.relay.relay import RelayLimits

FAR_IDS = (ID_MAX - 8_000, FIRST_ID + 1)
FAR_SHARE = 0.05
"""In so many seeds ids begin at the ends of what there is."""
ODD_SHARE = 0.05
"""So often is each of the rare things of a seed."""


CAREFUL_SHARE = 0.2
"""Of the seeds so many have the care that follows an unclean end."""
LETTERS_SHARE = 0.1
"""In so many seeds operators change dead letters and take replays back."""
STALLS_SHARE = 0.25
"""In so many seeds single threads of a daemon stand still for a while; not in those with care, which are rare."""
CHAINS_SHARE = 0.5
"""In so many seeds records of a key go together, with at-least-once delivery."""
CHANGES_SHARE = 0.25
"""In so many seeds people change the configuration, and topics, around daemons that run; not in those with care."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One seed's choices; times in seconds, shares from 0 to 1."""

    seed: int
    topics: Sequence[str]
    partitions: int
    keys: int
    transactions: int
    writers: int
    fault_seconds: float
    faults: int
    crashes: int
    daemons: int
    limits: RelayLimits
    routes: Sequence[Route]
    default_route: Route
    lease_ttl: float
    queue_rows_max: int
    batch_rows: int
    deletes: bool
    keyless_share: float
    delayed_share: float
    early_share: float
    rollback_share: float
    prepared_share: float
    slow_commit_share: float
    poison_share: float
    refused_share: float
    flaky_share: float
    doomed_share: float
    operator_actions: int
    big_share: float
    burst_share: float
    is_stormy: bool
    exactly_once: bool
    transaction_seconds: float
    fails_over: bool
    clock_jumps: bool
    ids_begin_after: int
    adds_partitions: bool
    has_high_row: bool
    sets_sequence_back: bool
    loses_commits: bool
    is_careful: bool
    killers: int
    changes_letters: bool
    has_stalls: bool
    has_changes: bool


def _ids_begin_after(near_zero: int, dice: random.Random) -> int:
    return near_zero if dice.random() >= FAR_SHARE else dice.choice(FAR_IDS)


def _with_chains(made: Scenario) -> Scenario:
    """Let records of a key go together in half of the seeds that may, where keys are few."""
    dice = random.Random(f"chains {made.seed}")
    if made.exactly_once or made.is_stormy or dice.random() >= CHAINS_SHARE:
        return replace(made, limits=replace(made.limits, chain_rows_min=0))
    limits = replace(made.limits, chain_rows_min=dice.choice([2, 3, 6]), chain_pause_seconds=0.5)
    return replace(made, limits=limits, keys=dice.choice([1, 2, 4, 12]))


def scenario(seed: int) -> Scenario:
    """Return the choices of a seed."""
    dice = random.Random(seed * 7919 + 1)
    # What was added later has dice of its own, lest it change what is chosen after it.
    odd = random.Random(f"odd {seed}")
    careful = random.Random(f"careful {seed}")
    is_careful = careful.random() < CAREFUL_SHARE
    later = random.Random(f"later {seed}")
    quiet = dice.random() < 0.25
    is_stormy = dice.random() < 0.04
    rows = dice.choice([8, 16, 16, 64])
    in_flight = dice.choice([16, 32, 32, 128])
    retry = RetryLimits(
        max_attempts=dice.choice([3, 5, 5, 8]),
        backoff_initial_seconds=0.2,
        backoff_max_seconds=1.5,
        max_age_seconds=dice.choice([0.0, 0.0, 0.0, 4.0]),
    )
    routes = [
        Route("serial.*", confirm=Confirm.EACH, retry=retry),
        Route("lossy.*", confirm=Confirm.NONE, retry=retry),
        Route("held.*", holds_key_on_death=True, retry=retry),
    ]
    exactly_once = dice.random() < 0.25
    # A transaction is aborted for each of its bad rows: many of them only make it slow.
    bad = 0.0 if quiet else 0.3 if exactly_once else 1.0
    names = ["orders", "invoices", "serial.a", "lossy.a", "held.a", "held.b"]
    if exactly_once:
        names.remove("lossy.a")
    topics = dice.sample(names, 1 if is_stormy else dice.choice([1, 2, 3, 4]))
    made = Scenario(
        seed=seed,
        topics=topics,
        partitions=dice.choice([1, 2, 3]),
        keys=60 if is_stormy else dice.choice([1, 3, 6, 12, 30, 60]),
        transactions=60 if is_stormy else dice.choice([10, 25, 25, 60]),
        writers=dice.choice([1, 2, 4]),
        fault_seconds=dice.choice([2.5, 4.0, 4.0, 6.0, 8.0, 16.0]),
        faults=dice.choice([1, 2, 4, 7]),
        crashes=dice.choice([1, 1, 2, 3]),
        daemons=dice.choice([1, 1, 2, 3]),
        limits=RelayLimits(
            batch_rows=rows,
            batch_bytes=dice.choice([2_000, 20_000, 1_000_000]),
            max_in_flight_rows=in_flight,
            max_in_flight_bytes=dice.choice([5_000, 1_000_000]),
            poll_interval_min_seconds=dice.choice([0.002, 0.01, 0.03]),
            poll_interval_max_seconds=dice.choice([0.1, 0.3, 0.5]),
            sweep_interval_seconds=dice.choice([0.7, 2.0, 5.0]),
            shutdown_timeout_seconds=2.0,
            # By the seed, lest it change what is chosen after it.
            reach_ids_min=(5, 40, 1_000_000)[seed % 3],
            stall_seconds=(10.0, 1.0, 0.4)[seed // 3 % 3],
        ),
        routes=routes,
        default_route=Route(retry=retry),
        lease_ttl=dice.choice([1.5, 3.0]),
        queue_rows_max=dice.choice([6, 1_000, 1_000]),
        batch_rows=dice.choice([1, 4, 20]),
        deletes=dice.random() < 0.4,
        keyless_share=dice.choice([0.0, 0.1, 0.4]),
        delayed_share=dice.choice([0.0, 0.0, 0.1]),
        early_share=dice.choice([0.0, 0.0, 0.15]),
        rollback_share=dice.choice([0.0, 0.1, 0.3]),
        prepared_share=dice.choice([0.0, 0.05]),
        slow_commit_share=dice.choice([0.05, 0.3]),
        poison_share=bad * dice.choice([0.0, 0.03, 0.15]),
        refused_share=bad * dice.choice([0.0, 0.03]),
        flaky_share=bad * dice.choice([0.0, 0.05, 0.15]),
        doomed_share=bad * dice.choice([0.0, 0.0, 0.03]),
        operator_actions=dice.choice([0, 0, 2, 5]),
        big_share=dice.choice([0.0, 0.1]),
        burst_share=dice.choice([0.0, 0.0, 0.1]),
        is_stormy=is_stormy,
        exactly_once=exactly_once,
        transaction_seconds=dice.choice([4.0, 10.0, 30.0]),
        fails_over=dice.random() < 0.15,
        clock_jumps=dice.random() < 0.1,
        ids_begin_after=_ids_begin_after(dice.choice([0, 0, 0, -20]), odd),
        adds_partitions=seed % 5 == 0,
        has_high_row=odd.random() < ODD_SHARE,
        sets_sequence_back=odd.random() < ODD_SHARE,
        loses_commits=odd.random() < ODD_SHARE,
        is_careful=is_careful,
        killers=careful.choice([0, 1, 2]),
        changes_letters=careful.random() < LETTERS_SHARE,
        has_stalls=later.random() < STALLS_SHARE and not is_careful,
        has_changes=later.random() < CHANGES_SHARE and not is_careful,
    )
    return _with_chains(made)
