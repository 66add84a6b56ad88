"""Whether a look is what `top` can show. A daemon of another version, or while none runs whoever has its port, may tell
anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from outboxd.cli.top.look import Look


def is_whole(look: Look) -> bool:
    """Say whether each value of the look is of the type that its field names."""
    return _fits(look, Look)


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is Sequence:
        (each_kind,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_fits(each, each_kind) for each in value)
    if isinstance(value, int | float) and not math.isfinite(value):
        return False
    if not isinstance(value, int | float if kind is float else kind):
        return False
    return not is_dataclass(kind) or all(
        _fits(getattr(value, name), each) for name, each in get_type_hints(kind).items()
    )
