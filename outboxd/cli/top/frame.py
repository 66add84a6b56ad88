"""One frame of `top`: a look as lines and tables that fit a terminal of any size."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from outboxd.cli.plain_text import count_of, lapse
from outboxd.cli.top.look import Counted, Latency, Look, Point, Topic, Waiting
from outboxd.cli.top.sparkline import sparkline
from outboxd.policy.blame.cause import plain as on_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

SPARK_SECONDS: Final = 300
LABEL_COLUMNS: Final = 9
LINE_COLUMNS_MAX: Final = 160
WHY_CHARS_MAX: Final = 300
_LOW_LINES: Final = 24
"""A lower terminal has no room for the captions of the sparklines."""
_TABLE_HEAD_LINES: Final = 2
_ROWS_A_TABLE_MIN: Final = 2
"""Even in the smallest terminal a table shows so many rows."""


def frame(look: Look, *, columns: int, lines: int, plain: bool = False, fits: bool = True) -> RenderableType:
    """Lay out one look.

    Args:
        look: what to show.
        columns: the terminal's width; every line is cut to it.
        lines: its height; the tables share what the head leaves. What does not fit is counted.
        plain: draw with ASCII only.
        fits: whether a person reads it in a terminal. What goes elsewhere uses all columns: nothing of a text is cut.
    """
    width = max(10, min(columns, LINE_COLUMNS_MAX)) if fits else columns
    head = _head(look, width, plain, is_low=lines < _LOW_LINES)
    sections = _sections(look)
    rows_max = _rows_each(lines - len(head) - 1, [len(rows) for _, _, rows in sections])
    body: list[RenderableType] = []
    for (title, names, rows), shown in zip(sections, rows_max, strict=True):
        more = f", {len(rows) - shown} more" if len(rows) > shown else ""
        body.append(_title(f"{title}{more}", width, plain=plain))
        body.append(_table(names, rows[:shown], width, plain=plain))
    return Group(*head, *body)


def _head(look: Look, width: int, plain: bool, *, is_low: bool) -> list[Text]:
    said: list[tuple[str, str, str]] = [
        ("outbox", look.outbox, "bold"),
        *_wrapped("state", look.state, width, lines_max=2),
        *(line for each in look.troubles for line in _wrapped("trouble", each, width, "bold red", lines_max=4)),
        ("from", look.source, "dim"),
        ("rate", _rates(look), ""),
        ("lag", "unknown" if look.lag_seconds is None else spoken(look.lag_seconds), ""),
        ("latency", _latency(look.latency) if look.points or look.latency else _ONLY_THE_DAEMON, ""),
        ("in flight", _in_flight(look), ""),
        ("backlog", _backlog(look), ""),
        ("dead", _dead(look.dead), "red" if look.dead and look.dead.rows else ""),
    ]
    points = _recent(look.points)
    if points:
        room = min(width, LINE_COLUMNS_MAX) - LABEL_COLUMNS - 1
        since = f"the last {lapse(points[-1].at - points[0].at + 1)}"
        rates, lags = ([point.rows_per_second for point in points], [point.lag_seconds for point in points])
        drawn = [
            ("rate", sparkline(rates, room, plain=plain), "cyan"),
            ("", f"{since}, at most {max(rates):,.0f} rows/s", "dim"),
            ("lag", sparkline(lags, room, plain=plain), "yellow"),
            ("", f"{since}, at most {spoken(max(lags))}", "dim"),
        ]
        said += [line for line in drawn if line[0] or not is_low]
    return [_line(label, text, style, width, plain=plain) for label, text, style in said]


def _wrapped(label: str, text: str, width: int, style: str = "", *, lines_max: int) -> list[tuple[str, str, str]]:
    """What matters most is not cut where the terminal is narrow: a trouble has its remedy at its end."""
    found = wrap(on_one_line(text, _chars_max(width)), max(1, width - LABEL_COLUMNS - 1)) or [""]
    if len(found) > lines_max:
        found = [*found[: lines_max - 1], " ".join(found[lines_max - 1 :])]
    return [("" if place else label, line, style) for place, line in enumerate(found)]


_ONLY_THE_DAEMON: Final = "unknown: only a daemon's page tells it"


def _recent(points: Sequence[Point]) -> Sequence[Point]:
    return [point for point in points if point.at > points[-1].at - SPARK_SECONDS]


def _line(label: str, text: str, style: str, width: int, *, plain: bool) -> Text:
    line = Text(f"{label:<{LABEL_COLUMNS}} ", style="dim", no_wrap=True, overflow="ellipsis", end="\n")
    # Texts of topics, keys and causes come from elsewhere: nothing in them may drive the terminal.
    line.append(on_one_line(text, _chars_max(width)), style=style or "not dim")
    line.truncate(width, overflow="crop" if plain else "ellipsis")
    return line


def _chars_max(width: int) -> int:
    return 2 * max(width, LINE_COLUMNS_MAX)


def _rates(look: Look) -> str:
    if look.rows_per_second is None:
        return _ONLY_THE_DAEMON
    return (
        f"{look.rows_per_second:,.0f} rows/s now, {look.rows_per_second_10s or 0:,.0f} over 10 s, "
        f"{look.rows_per_second_10min or 0:,.0f} over 10 min"
    )


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "nothing acknowledged lately"
    return f"p50 {spoken(latency.p50_seconds)}, p99 {spoken(latency.p99_seconds)} commit to ack, {latency.over}"


def _in_flight(look: Look) -> str:
    if look.in_flight_rows is None:
        return _ONLY_THE_DAEMON
    memory = f"{(look.in_memory_bytes or 0) / 2**20:,.1f} MiB"
    return f"{count_of(look.in_flight_rows, 'row')} at the broker, {look.in_memory_rows or 0:,} in memory ({memory})"


def _backlog(look: Look) -> str:
    if look.pending is None:
        return "not measured yet"
    # Rows that wait for their time have no age: they are no backlog.
    age = f", the oldest for {lapse(look.oldest_pending_seconds)}" if look.oldest_pending_seconds else ""
    return f"{look.pending} pending{age}, {look.in_retry} in retry"


def _dead(dead: Counted | None) -> str:
    if dead is None:
        return "not measured yet"
    letters = "dead letter" if str(dead) == "1" else "dead letters"
    return f"{dead} {letters}" + (" (outboxd dead summary)" if dead.rows else "")


def spoken(seconds: float) -> str:
    """A short time in milliseconds, a long one in the largest fitting unit."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else lapse(seconds)


_Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def _sections(look: Look) -> list[_Section]:
    """The tables that have something to show, the most urgent first."""
    waiting = ("what", "for", "why")
    held = f"held keys: {look.held_keys}"
    found: list[_Section] = [
        ("breakers: topics on hold", waiting, _waiting(look.breakers)),
        ("paused until `outboxd resume`", waiting, _waiting(look.pauses)),
        (held, waiting, _waiting(look.held)),
        ("topics", ("topic", "rows/s", "in flight", "published", "dead", "on hold"), [_topic(t) for t in look.topics]),
    ]
    return [section for section in found if section[2]]


def _waiting(entries: Sequence[Waiting]) -> list[Sequence[str]]:
    return [(entry.what, entry.since, entry.why) for entry in entries]


def _topic(topic: Topic) -> Sequence[str]:
    return (
        topic.name or '""',
        "-" if topic.rows_per_second is None else f"{topic.rows_per_second:,.0f}",
        f"{topic.in_flight:,}" if topic.published is not None else "-",
        "-" if topic.published is None else f"{topic.published:,}",
        f"{topic.dead:,}" if topic.dead else "",
        topic.state,
    )


def _rows_each(lines: int, wanted: Sequence[int]) -> list[int]:
    """How many rows each table may show of `wanted`, in so many lines; each table has a head too."""
    shown = [min(rows, _ROWS_A_TABLE_MIN) for rows in wanted]
    left = lines - sum(shown) - _TABLE_HEAD_LINES * len(wanted)
    while left > 0 and shown != list(wanted):
        for place, rows in enumerate(wanted):
            if shown[place] < rows and left > 0:
                shown[place] += 1
                left -= 1
    return shown


def _title(text: str, width: int, *, plain: bool) -> Text:
    """A line of its own: a table's title of rich's making is wrapped where its rows are shorter."""
    title = Text(text, style="bold", no_wrap=True)
    title.truncate(width, overflow="crop" if plain else "ellipsis")
    return title


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, plain: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", width=None)
    for name in names:
        is_number = name in ("rows/s", "in flight", "published", "dead")
        is_name = name in ("what", "topic")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="crop" if plain else "ellipsis",
            min_width=min(8, width // 3) if is_name else 5 if name == "for" else None,
            max_width=max(8, width // 3) if is_name else width,
        )
    for row in rows:
        table.add_row(*(Text(on_one_line(text, max(width, WHY_CHARS_MAX))) for text in row))
    return table
