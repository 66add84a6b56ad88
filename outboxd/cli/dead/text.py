"""What `outboxd dead` prints: for a person at 3 a.m. as text, for a script as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from outboxd.cli.output import console, print_line
from outboxd.cli.plain_text import (
    NOTHING,
    ago,
    as_text,
    cell,
    count_of,
    hex_dump,
    lapse,
    moment,
    moment_and_lapse,
    one_line,
    safe,
    shell_word,
    stored_moment,
)
from outboxd.policy.faults import fault_named
from outboxd.policy.rows.headers import readable_headers
from outboxd.postgres.operators.dead_letter_rows import RECENT_SECONDS
from outboxd.postgres.operators.sql_by_hand import sql_by_hand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outboxd.postgres.operators.dead_letter_rows import Group, Letter, Obstacle, WholeLetter

#: Bytes of what is not text, characters of what is.
PAYLOAD_UNITS_SHOWN = 4096
LABEL_COLUMNS = 15
#: Between two columns of a table.
GAP_COLUMNS = 3


def print_obstacles(count: int, sample: Sequence[Obstacle]) -> None:
    """Why some were not replayed."""
    if not count:
        return
    print_line(f"{count_of(count, 'dead letter')} not taken; --force replays all the same:")
    for obstacle in sample:
        print_line(f"  {obstacle.id} ({one_line(obstacle.topic)}): {obstacle.sentence}")
    if count > len(sample):
        print_line(f"  … and {count - len(sample):,} more")


def group_as_json(group: Group) -> dict[str, Any]:
    """A group as the contract has it."""
    values = asdict(group)
    del values["recent"]
    return values


def print_summary(groups: Sequence[Group], total: int, outbox: str, now: datetime) -> None:
    """Groups, what each means, and where to go from here."""
    if not groups:
        print_line(f"no dead letters in outbox {outbox}")
        return
    recent = sum(group.recent for group in groups)
    trend = f"still growing: {recent:,} in the last {lapse(RECENT_SECONDS)}" if recent else (
        f"not growing: none in the last {lapse(RECENT_SECONDS)}"
    )  # fmt: skip
    print_line(f"{count_of(total, 'dead letter')} in outbox {outbox}, {trend}")
    print_line()
    print_table(
        ("TOPIC", "ERROR", "REASON", "COUNT", "KEYS", "SINCE", "LAST", "GROWING", "SAMPLE"),
        [
            (
                cell(group.topic), group.error_code, group.reason, f"{group.count:,}", f"{group.keys:,}",
                moment(group.first), ago(group.last, now), f"+{group.recent:,}" if group.recent else "no",
                str(group.sample_id),
            )
            for group in groups
        ],
    )  # fmt: skip
    print_line()
    for code in dict.fromkeys(group.error_code for group in groups):
        meaning, remedy = explanation(code)
        print_line(f"{code}: {meaning}")
        print_line(f"  {remedy}")
    print_line()
    print_line(f"look at one:     outboxd dead show {groups[0].sample_id}")
    print_line(f"safe to replay?  outboxd dead replay --topic {shell_word(groups[0].topic)} --dry-run")


def print_list(letters: Sequence[Letter], now: datetime, *, more: bool) -> None:
    """One line for each dead letter."""
    if not letters:
        print_line("no dead letters match")
        return
    print_table(
        ("ID", "DIED", "STATUS", "TOPIC", "KEY", "ERROR", "REASON", "ATTEMPTS", "BYTES"),
        [
            (
                str(letter.id), ago(letter.died_at, now), letter.status, cell(letter.topic), cell(letter.key, 40),
                letter.error_code, letter.reason, str(letter.attempts),
                "null" if letter.payload_bytes is None else f"{letter.payload_bytes:,}",
            )
            for letter in letters
        ],
    )  # fmt: skip
    if more:
        print_line("there are more: --limit shows them, `outboxd dead summary` counts them")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose cells are plain text; numbers stand right.

    Where not even its titles fit a terminal, each row has a line for each cell.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    there = console()
    if there.width < sum(len(title) + GAP_COLUMNS for title in titles) - GAP_COLUMNS:
        _print_records(titles, rows)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, title in enumerate(titles):
        numeric = all(row[column].replace(",", "").lstrip("+").isdecimal() for row in rows)
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    there.print(table)


def _print_records(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    width = max(map(len, titles))
    for place, row in enumerate(rows):
        if place:
            print_line()
        for title, text in zip(titles, row, strict=True):
            print_line(f"{title:<{width}} {text}")


def print_letter(whole: WholeLetter, alike: Group | None, now: datetime, schema: str, *, full: bool) -> None:
    """One dead letter with all that is known of it, and the SQL to do by hand what the command line does."""
    letter = whole.letter
    meaning, remedy = explanation(letter.error_code)
    print_line(f"dead letter {letter.id}: {letter.status}, died {moment_and_lapse(letter.died_at, now)}")
    print_line()
    _field("what broke", f"{letter.error_code} ({letter.reason}): {meaning}")
    _field("what to do", remedy)
    _field("error", one_line(letter.error_message))
    _field("topic", one_line(letter.topic) or NOTHING)
    _field("key", "none" if letter.key is None else one_line(letter.key) or NOTHING)
    _field("partition", "by the key" if letter.partition is None else str(letter.partition))
    _field("outbox row", f"{letter.outbox_id}, event id {letter.event_id}, written {stored_moment(letter.created_at)}")
    _field(
        "attempts", f"{letter.attempts}, first failed {moment(letter.first_failed_at)}, daemon {cell(letter.daemon)}"
    )
    _field("alike", _alike(alike, now))
    _field("holds its key", _holds(letter))
    _field("safe to replay", _safety(whole))
    if letter.resolved_at is not None:
        _field(
            "resolved", f"{letter.status} by {cell(letter.resolved_by)}, {moment_and_lapse(letter.resolved_at, now)}"
        )
    if letter.note is not None:
        _field("note", safe(letter.note).replace("\n", "\n" + " " * (LABEL_COLUMNS + 1)))
    _print_headers(letter.headers)
    _print_payload(whole.payload, full=full)
    print_line()
    print_line("by hand, in psql:")
    for purpose, statement in sql_by_hand(whole, schema).items():
        print_line(f"  -- {purpose}")
        print_line(f"  {statement}")


def letter_in_list_as_json(letter: Letter) -> dict[str, Any]:
    """One line of `dead list --json`: all but the payload."""
    return {**asdict(letter), "headers": _as_stored(letter.headers)}


def letter_as_json(whole: WholeLetter) -> dict[str, Any]:
    """One dead letter for a script: `payload` is the text where it is UTF-8, and `payload_hex` is there for all."""
    letter = asdict(whole.letter)
    payload = whole.payload
    letter["headers"] = _as_stored(whole.letter.headers)
    letter["payload"] = None if payload is None else _decoded(payload)
    letter["payload_hex"] = None if payload is None else payload.hex()
    return letter


def whole_as_json(whole: WholeLetter, schema: str) -> dict[str, Any]:
    """`dead show --json`: the letter with what it means, whether it is safe to replay, and the SQL."""
    meaning, remedy = explanation(whole.letter.error_code)
    return {
        **letter_as_json(whole),
        "meaning": meaning,
        "remedy": remedy,
        "safe_to_replay": whole.letter.status == "dead" and whole.obstacle is None,
        "replay_obstacle": None if whole.obstacle is None else whole.obstacle.sentence,
        "sql": sql_by_hand(whole, schema),
    }


def explanation(code: str) -> tuple[str, str]:
    """Meaning and remedy of a stored error code."""
    fault = fault_named(code)
    if fault is None:
        return ("A code that this version of outboxd does not know.", "See the error message of one of them.")
    return fault.meaning, fault.remedy


def _alike(alike: Group | None, now: datetime) -> str:
    if alike is None:
        return "no other is dead of this"
    trend = f"still growing, {alike.recent:,} in the last {lapse(RECENT_SECONDS)}" if alike.recent else "not growing"
    return (
        f"{alike.count:,} dead of this topic and error, {count_of(alike.keys, 'key')}, "
        f"since {moment(alike.first)}, last {ago(alike.last, now)}: {trend}"
    )


def _holds(letter: Letter) -> str:
    if not letter.holds_key or letter.status not in {"dead", "replaying"}:
        return "no: later rows of its key go on"
    return "yes: later rows of its key wait until it is delivered by a replay, or discarded"


def _safety(whole: WholeLetter) -> str:
    if whole.letter.status != "dead":
        return f"it is {whole.letter.status} already"
    if whole.obstacle is not None:
        return f"only with --force: {whole.obstacle.sentence}"
    return "yes, as far as order goes: no newer row of its key was published"


def _as_stored(headers: str) -> orjson.Fragment:
    """The headers' JSON as PostgreSQL has it: parsed, its numbers would be rounded, and some of it be refused."""
    return orjson.Fragment(headers)


def _print_headers(headers: str) -> None:
    pairs = readable_headers(headers, orjson.loads)
    print_line()
    if pairs is None:
        print_line("headers, which cannot be sent as they are:")
        print_line(f"  {one_line(headers)}")
        return
    print_line("headers:" if pairs else "headers: none")
    for name, value in pairs:
        print_line(f"  {one_line(name)}: {'null' if value is None else one_line(value)}")


def _print_payload(payload: bytes | None, *, full: bool) -> None:
    if payload is None:
        print_line("payload: null, a tombstone")
        return
    text = as_text(payload)
    units_max = None if full else PAYLOAD_UNITS_SHOWN
    print_line(f"payload: {count_of(len(payload), 'byte')}, {'not text' if text is None else 'text'}")
    for line in hex_dump(payload[:units_max]) if text is None else safe(text[:units_max]).splitlines():
        print_line(f"  {line}")
    if units_max is not None and len(payload if text is None else text) > units_max:
        print_line("  … and more: --full shows all")


def _field(label: str, text: str) -> None:
    print_line(f"{label:<{LABEL_COLUMNS}} {text}")


def _decoded(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None
