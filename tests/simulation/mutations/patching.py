"""Put a deliberate bug into a function's source for a while; a bug whose place has changed is an error, not a pass."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.simulation.scenario import Scenario

SEEDS_MAX = 1_000
"""Within so many seeds each bug is found, unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug: `old` becomes `new` in the source of `owner`'s function `name`; found within `seeds_max` seeds.

    It is only looked for in histories `where` it can show, from `first_seed` on: those before it, which did not show
    it, would take long.
    """

    title: str
    owner: Any
    name: str
    old: str
    new: str
    seeds_max: int = SEEDS_MAX
    first_seed: int = 0
    where: Callable[[Scenario], bool] = lambda _: True


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """Run with the bug in place."""
    owner, name = mutation.owner, mutation.name
    former = inspect.getattr_static(owner, name)
    function: Any = former.fget if isinstance(former, property) else getattr(former, "__func__", former)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutation.old) != 1:
        raise LookupError(f"{mutation.title}: {mutation.old!r} does not stand once in {name}")
    module = sys.modules[function.__module__]
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source.replace(mutation.old, mutation.new), name, "exec")
    exec(code, module.__dict__, names)
    setattr(owner, name, names[name])
    try:
        yield
    finally:
        setattr(owner, name, former)
