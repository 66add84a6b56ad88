"""Charts as SVG text, with what the plots need and no more: lines over an axis, and stacked bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 74, 190, 78, 52
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999", "#8c6d31")
"""Distinct to people who see few colours too (Okabe and Ito), and two more."""
_FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""
_INK, _FAINT, _GRID = "#222222", "#666666", "#e3e3e3"
_LABEL_GAP = 15.0
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From where to where, at which values there is a tick, and how a value reads."""

    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str]
    title: str
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value is, 0 to 1."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(high: float, text: Callable[[float], str], title: str) -> Axis:
    """From zero up to at least `high`, by ones, twos or fives."""
    step = 10.0 ** math.floor(math.log10(high / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if step * factor * 5 >= high)
    count = math.ceil(high / step)
    return Axis(0.0, step * count, [step * tick for tick in range(count + 1)], text, title)


def log_axis(low: float, high: float, text: Callable[[float], str], title: str) -> Axis:
    """Ones, twos and fives from at most `low` to at least `high`."""
    ticks = [10.0**power * factor for power in range(-3, 9) for factor in (1, 2, 5)]
    first = max(index for index, tick in enumerate(ticks) if tick <= low)
    last = min(index for index, tick in enumerate(ticks) if tick >= high and index > first)
    return Axis(ticks[first], ticks[last], ticks[first : last + 1], text, title, is_log=True)


def line_chart(title: str, note: str, x: Axis, y: Axis, lines: Mapping[str, Sequence[Point]]) -> str:
    """Lines with a dot at each point, each named at its end."""
    height = 416
    wide, high = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM

    def place(point: Point) -> Point:
        return LEFT + wide * x.share(point[0]), TOP + high * (1 - y.share(point[1]))

    parts = []
    for tick in y.ticks:
        at = TOP + high * (1 - y.share(tick))
        parts += [_line((LEFT, at), (LEFT + wide, at), _GRID), _text((LEFT - 8, at + 4), y.text(tick), anchor="end")]
    for tick in x.ticks:
        at = LEFT + wide * x.share(tick)
        parts += [
            _line((at, TOP + high), (at, TOP + high + 5), _FAINT),
            _text((at, TOP + high + 19), x.text(tick), anchor="middle"),
        ]
    parts.append(_text((LEFT + wide / 2, height - 12), x.title, anchor="middle", colour=_FAINT))
    parts.append(_text((LEFT, TOP - 10), y.title, colour=_FAINT))
    ends = _spread({name: place(points[-1])[1] for name, points in lines.items()})
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        placed = [place(point) for point in points]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3.5" fill="{colour}"><title>{escape(name)}, '
            f"{escape(x.text(at_x))}: {escape(y.text(at_y))}</title></circle>"
            for (across, down), (at_x, at_y) in zip(placed, points, strict=True)
        ]
        parts.append(_text((placed[-1][0] + 10, ends[name] + 4), name, colour=colour, bold=True))
    return _document(title, note, height, parts)


def stacked_bars(
    title: str, note: str, axis: Axis, bars: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> str:
    """A bar a line, each of its parts one after another; the legend is below the axis."""
    left, bar_height, gap = 176, 22, 12
    top_edge = TOP - 24  # no title of an axis stands above
    wide = WIDTH - left - 70
    high = len(bars) * (bar_height + gap) + gap
    legend_lines = math.ceil(len(colours) / 4)
    height = top_edge + high + BOTTOM + 20 * legend_lines
    parts = []
    for tick in axis.ticks:
        at = left + wide * axis.share(tick)
        parts += [
            _line((at, top_edge), (at, top_edge + high), _GRID),
            _text((at, top_edge + high + 17), axis.text(tick), anchor="middle"),
        ]
    parts.append(_text((left + wide / 2, top_edge + high + 36), axis.title, anchor="middle", colour=_FAINT))
    for index, (name, values) in enumerate(bars.items()):
        top = top_edge + gap + index * (bar_height + gap)
        parts.append(_text((left - 8, top + 15), name, anchor="end"))
        at = float(left)
        for who, value in values.items():
            across = wide * value / (axis.high - axis.low)
            parts.append(
                f'<rect x="{at:.1f}" y="{top}" width="{across:.1f}" height="{bar_height}" fill="{colours[who]}"'
                f' stroke="#ffffff" stroke-width="1"><title>{escape(name)}, {escape(who)}: {value:.2f}</title></rect>'
            )
            at += across
        parts.append(_text((at + 6, top + 15), axis.text(round(sum(values.values()), 1)), bold=True))
    for index, (who, colour) in enumerate(colours.items()):
        across, down = 24 + (index % 4) * 180, height - 20 * (legend_lines - index // 4) + 4
        parts.append(f'<rect x="{across}" y="{down - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text((across + 18, down), who))
    return _document(title, note, height, parts)


def _spread(ends: Mapping[str, float]) -> dict[str, float]:
    """Move names apart that would lie on each other."""
    placed: dict[str, float] = {}
    for name, at in sorted(ends.items(), key=lambda end: end[1]):
        placed[name] = max(at, max(placed.values(), default=-math.inf) + _LABEL_GAP)
    return placed


def _line(start: Point, end: Point, colour: str) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}"'
        f' stroke-width="1"/>'
    )


def _text(
    at: Point, text: str, *, anchor: str = "start", colour: str = _INK, bold: bool = False, size: int = 12
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{escape(text)}</text>"
    )


def _document(title: str, note: str, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" {_FONT}>\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f"{_text((16, 22), title, bold=True, size=15)}\n{_text((16, 38), note, colour=_FAINT, size=11)}\n"
        f"{body}\n</svg>\n"
    )
