"""What is wrong with a configuration: all of it at once, each mistake with its place."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from outboxd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        place: where it stands, such as `/etc/outboxd/outboxd.toml:12` or `environment OUTBOXD_RELAY__BATCH_ROWS`.
        key: the setting's contract name, such as `relay.batch_rows`; empty when the place as a whole is meant.
        problem: what is wrong and what is allowed.
    """

    place: str
    key: str
    problem: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.problem) if part)


def config_error(mistakes: Sequence[Mistake]) -> ConfigError:
    """One error that lists every mistake, each on a line of its own, in the order given and without repeats."""
    lines = list(dict.fromkeys(str(mistake) for mistake in mistakes))
    if len(lines) == 1:
        return ConfigError(f"the configuration has a mistake: {lines[0]}")
    return ConfigError("\n".join([f"the configuration has {len(lines)} mistakes:", *(f"  {line}" for line in lines)]))


def suggestion(name: str, known: Iterable[str], *, likeness_min: float = 0.6) -> str:
    """What to append to a message about `name`: the known name nearest to it; empty when none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=likeness_min)
    return f"; did you mean {near[0]}?" if near else ""
