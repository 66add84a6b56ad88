"""A line of small bars: the last minutes at a glance, in so many characters."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*%#"


def sparkline(values: Sequence[float], columns: int, *, plain: bool = False) -> str:
    """`values`, oldest first, as at most `columns` bars; the highest bar is the highest value, an empty one is zero.

    Where there are more values than columns, a bar is the highest of those it stands for: a short peak stays visible.
    """
    if columns <= 0 or not values:
        return ""
    bars = PLAIN_BARS if plain else BARS
    shown = list(values) if len(values) <= columns else _gathered(values, columns)
    highest = max(shown)
    if highest <= 0:
        return bars[0] * len(shown)
    return "".join(bars[0] if value <= 0 else bars[round(value / highest * (len(bars) - 1))] for value in shown)


def _gathered(values: Sequence[float], columns: int) -> list[float]:
    return [
        max(values[column * len(values) // columns : (column + 1) * len(values) // columns])
        for column in range(columns)
    ]
