"""The faults of a chaos campaign: drawn from a seed, every kind in its turn."""

from __future__ import annotations

from itertools import islice

from tests.chaos.campaign.faults import MENU
from tests.chaos.campaign.schedule import drawn


def names(seed: int, count: int) -> list[str]:
    return [kind.name for _, kind, _ in islice(drawn(MENU, seed), count)]


def test_a_seed_draws_the_same_faults_with_the_same_dice_each_time() -> None:
    first = [(number, kind.name, dice.random()) for number, kind, dice in islice(drawn(MENU, 7), 300)]
    again = [(number, kind.name, dice.random()) for number, kind, dice in islice(drawn(MENU, 7), 300)]
    assert first == again
    assert names(7, 300) != names(8, 300)


def test_six_hundred_faults_have_every_kind_of_the_menu() -> None:
    assert len(MENU) >= 25
    assert set(names(1, 600)) == {kind.name for kind in MENU}


def test_kinds_have_names_of_their_own_and_take_something() -> None:
    assert len({kind.name for kind in MENU}) == len(MENU)
    assert all(kind.takes and kind.run.__doc__ for kind in MENU)
